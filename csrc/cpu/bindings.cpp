// Python bindings of the operations on the CPU. Tensors come as addresses (0 for an absent one) that latentdem_ext has
// checked and keeps alive; no PyTorch header is needed, so one build serves every PyTorch version.

#include "bindings.hpp"
#include "blur.hpp"
#include "dps_step.hpp"
#include "gradient_lags.hpp"
#include "group_norm_silu.hpp"
#include "hqs_prepare.hpp"
#include "hqs_update.hpp"
#include "kernel_from_lags.hpp"
#include "l0_deconvolution.hpp"
#include "lane_fft.hpp"
#include "masked_kernel.hpp"
#include "masked_proximal.hpp"
#include "renoise.hpp"
#include "transpose.hpp"
#include "winograd.hpp"

namespace py = pybind11;

namespace {

using latentdem::Address;
using latentdem::pointer;
using std::int64_t;

} // namespace

PYBIND11_MODULE(_cpu, module) {
    module.doc() = "Operations on contiguous arrays in CPU memory, for latentdem_ext.";

    module.def("has_fft", &latentdem::has_fft, py::arg("length"));

    module.def(
        "blur",
        [](Address x, Address kernel, Address y, Address rho, Address norm2, int64_t batch, int64_t channels,
           int64_t height, int64_t columns, int64_t size, bool adjoint, bool whole_y, bool even_width, int threads) {
            latentdem::blur({pointer<float>(x), pointer<const float>(kernel), pointer<const float>(y),
                             pointer<const double>(rho), pointer<double>(norm2), batch, channels, height, columns, size,
                             adjoint, whole_y, even_width, threads});
        },
        py::kw_only(), py::arg("x"), py::arg("kernel"), py::arg("y") = 0, py::arg("rho") = 0, py::arg("norm2") = 0,
        py::arg("batch"), py::arg("channels"), py::arg("height"), py::arg("columns"), py::arg("size"),
        py::arg("adjoint") = false, py::arg("whole_y") = false, py::arg("even_width") = false, py::arg("threads"),
        py::call_guard<py::gil_scoped_release>());

    module.def(
        "finish_fidelity",
        [](Address x, Address correction, Address glued, int64_t count, int threads) {
            latentdem::finish_fidelity(pointer<const float>(x), pointer<float>(correction), pointer<float>(glued),
                                       count, threads);
        },
        py::kw_only(), py::arg("x"), py::arg("correction"), py::arg("glued"), py::arg("count"), py::arg("threads"),
        py::call_guard<py::gil_scoped_release>());

    module.def(
        "hqs_prepare",
        [](Address x, Address y, Address weight, Address lags, int64_t batch, int64_t samples, int64_t channels,
           int64_t height, int64_t columns, int64_t size, bool per_channel, bool whole_y, int threads) {
            latentdem::hqs_prepare({pointer<const float>(x), pointer<const float>(y), pointer<const double>(weight),
                                    pointer<float>(lags), batch, samples, channels, height, columns, size, per_channel,
                                    whole_y, threads});
        },
        py::kw_only(), py::arg("x"), py::arg("y"), py::arg("weight"), py::arg("lags"), py::arg("batch"),
        py::arg("samples"), py::arg("channels"), py::arg("height"), py::arg("columns"), py::arg("size"),
        py::arg("per_channel"), py::arg("whole_y"), py::arg("threads"), py::call_guard<py::gil_scoped_release>());

    module.def(
        "hqs_update",
        [](Address kernel, Address data_term, Address filter, Address updated, int64_t batch, int64_t size,
           int64_t side, int64_t iterations, bool project, int threads) {
            latentdem::hqs_update({pointer<const float>(kernel), pointer<const float>(data_term),
                                   pointer<const float>(filter), pointer<float>(updated), batch, size, side, iterations,
                                   project, threads});
        },
        py::kw_only(), py::arg("kernel"), py::arg("data_term"), py::arg("filter"), py::arg("updated"), py::arg("batch"),
        py::arg("size"), py::arg("side"), py::arg("iterations"), py::arg("project"), py::arg("threads"),
        py::call_guard<py::gil_scoped_release>());

    module.def(
        "kernel_from_lags",
        [](Address lags, Address cross, Address weight, Address start, Address kernel, int64_t batch, int64_t size,
           int64_t side, bool nonnegative, double tolerance, int64_t iterations, int threads) {
            latentdem::kernel_from_lags({pointer<const float>(lags), pointer<const float>(cross),
                                         pointer<const double>(weight), pointer<const float>(start),
                                         pointer<float>(kernel), batch, size, side, nonnegative, tolerance, iterations,
                                         threads});
        },
        py::kw_only(), py::arg("lags"), py::arg("cross"), py::arg("weight"), py::arg("start"), py::arg("kernel"),
        py::arg("batch"), py::arg("size"), py::arg("side"), py::arg("nonnegative"), py::arg("tolerance"),
        py::arg("iterations"), py::arg("threads"), py::call_guard<py::gil_scoped_release>());

    module.def(
        "l0_deconvolution",
        [](Address y, Address otf, Address penalty, Address weight, Address growth, Address last_weight, Address x,
           int64_t batch, int64_t channels, int64_t height, int64_t width, int threads) {
            latentdem::l0_deconvolution({pointer<const float>(y), pointer<const float>(otf),
                                         pointer<const double>(penalty), pointer<const double>(weight),
                                         pointer<const double>(growth), pointer<const double>(last_weight),
                                         pointer<float>(x), batch, channels, height, width, threads});
        },
        py::kw_only(), py::arg("y"), py::arg("otf"), py::arg("penalty"), py::arg("weight"), py::arg("growth"),
        py::arg("last_weight"), py::arg("x"), py::arg("batch"), py::arg("channels"), py::arg("height"),
        py::arg("width"), py::arg("threads"), py::call_guard<py::gil_scoped_release>());

    module.def(
        "masked_kernel_solve",
        [](Address x, Address mask, Address weight, Address right, Address factor, Address solution, Address residual,
           int64_t batch, int64_t masks, int64_t images, int64_t height, int64_t width, int64_t size, double allowed,
           int64_t iterations, int threads) {
            latentdem::masked_kernel_solve(
                {pointer<const float>(x), pointer<const float>(mask), pointer<const double>(weight),
                 pointer<const float>(right), pointer<const float>(factor), pointer<float>(solution),
                 pointer<float>(residual), batch, masks, images, height, width, size, allowed, iterations, threads});
        },
        py::kw_only(), py::arg("x"), py::arg("mask"), py::arg("weight"), py::arg("right"), py::arg("factor") = 0,
        py::arg("solution"), py::arg("residual"), py::arg("batch"), py::arg("masks"), py::arg("images"),
        py::arg("height"), py::arg("width"), py::arg("size"), py::arg("allowed"), py::arg("iterations"),
        py::arg("threads"), py::call_guard<py::gil_scoped_release>());

    module.def(
        "masked_proximal",
        [](Address x0, Address y, Address fill, Address mask, Address otf, Address rho, Address band_rows,
           Address band_columns, Address x, Address filled, int64_t batch, int64_t masks, int64_t channels,
           int64_t height, int64_t width, int64_t row_count, int64_t column_count, double tolerance, double caution,
           double caution_with_holes, double rounding, double least, int64_t iterations, int threads) {
            latentdem::masked_proximal({pointer<const float>(x0),
                                        pointer<const float>(y),
                                        pointer<const float>(fill),
                                        pointer<const float>(mask),
                                        pointer<const float>(otf),
                                        pointer<const double>(rho),
                                        pointer<const int64_t>(band_rows),
                                        pointer<const int64_t>(band_columns),
                                        pointer<float>(x),
                                        pointer<float>(filled),
                                        batch,
                                        masks,
                                        channels,
                                        height,
                                        width,
                                        row_count,
                                        column_count,
                                        tolerance,
                                        caution,
                                        caution_with_holes,
                                        rounding,
                                        least,
                                        iterations,
                                        threads});
        },
        py::kw_only(), py::arg("x0"), py::arg("y"), py::arg("fill") = 0, py::arg("mask"), py::arg("otf"),
        py::arg("rho"), py::arg("band_rows"), py::arg("band_columns"), py::arg("x"), py::arg("filled"),
        py::arg("batch"), py::arg("masks"), py::arg("channels"), py::arg("height"), py::arg("width"),
        py::arg("row_count"), py::arg("column_count"), py::arg("tolerance"), py::arg("caution"),
        py::arg("caution_with_holes"), py::arg("rounding"), py::arg("least"), py::arg("iterations"), py::arg("threads"),
        py::call_guard<py::gil_scoped_release>());

    module.def(
        "renoise",
        [](Address z_t, Address z0, Address noise, Address abar_t, Address abar_prev, Address fresh, Address z_prev,
           int64_t batch, int64_t numel, int threads) {
            latentdem::renoise({pointer<const float>(z_t), pointer<const float>(z0), pointer<const float>(noise),
                                pointer<const double>(abar_t), pointer<const double>(abar_prev),
                                pointer<const double>(fresh), pointer<float>(z_prev), batch, numel, threads});
        },
        py::kw_only(), py::arg("z_t"), py::arg("z0"), py::arg("noise"), py::arg("abar_t"), py::arg("abar_prev"),
        py::arg("fresh"), py::arg("z_prev"), py::arg("batch"), py::arg("numel"), py::arg("threads"),
        py::call_guard<py::gil_scoped_release>());

    module.def(
        "dps_step",
        [](Address z_t, Address eps, Address eps_uncond, Address noise, Address gradient, Address abar_t,
           Address abar_prev, Address step_size, Address z_prev, Address z0, int64_t batch, int64_t numel,
           double guidance, double eta, int threads) {
            latentdem::dps_step({pointer<const float>(z_t), pointer<const float>(eps), pointer<const float>(eps_uncond),
                                 pointer<const float>(noise), pointer<const float>(gradient),
                                 pointer<const double>(abar_t), pointer<const double>(abar_prev),
                                 pointer<const double>(step_size), pointer<float>(z_prev), pointer<float>(z0), batch,
                                 numel, guidance, eta, threads});
        },
        py::kw_only(), py::arg("z_t"), py::arg("eps"), py::arg("eps_uncond"), py::arg("noise"), py::arg("gradient"),
        py::arg("abar_t"), py::arg("abar_prev"), py::arg("step_size"), py::arg("z_prev"), py::arg("z0"),
        py::arg("batch"), py::arg("numel"), py::arg("guidance"), py::arg("eta"), py::arg("threads"),
        py::call_guard<py::gil_scoped_release>());

    module.def(
        "gradient_lags",
        [](Address x, Address spectrum, Address mask, Address whitening, Address lags, Address cross, int64_t batch,
           int64_t masks, int64_t channels, int64_t height, int64_t width, int64_t size, int threads) {
            latentdem::gradient_lags({pointer<const float>(x), pointer<const float>(spectrum),
                                      pointer<const float>(mask), pointer<const double>(whitening),
                                      pointer<float>(lags), pointer<float>(cross), batch, masks, channels, height,
                                      width, size, threads});
        },
        py::kw_only(), py::arg("x"), py::arg("spectrum"), py::arg("mask"), py::arg("whitening"), py::arg("lags"),
        py::arg("cross"), py::arg("batch"), py::arg("masks"), py::arg("channels"), py::arg("height"), py::arg("width"),
        py::arg("size"), py::arg("threads"), py::call_guard<py::gil_scoped_release>());

    module.def(
        "group_norm_silu",
        [](Address x, Address weight, Address bias, Address y, Address mean, Address rstd, int64_t batch,
           int64_t channels, int64_t spatial, int64_t groups, bool channels_last, bool bfloat16, double eps,
           int threads) {
            const auto run = [&](auto storage) {
                using T = decltype(storage);
                const latentdem::GroupNormSilu<T> op{{batch, channels, spatial, groups, channels_last, threads},
                                                     pointer<const T>(x),
                                                     pointer<const float>(weight),
                                                     pointer<const float>(bias),
                                                     pointer<T>(y),
                                                     pointer<float>(mean),
                                                     pointer<float>(rstd),
                                                     eps};
                latentdem::group_norm_silu(op);
            };
            bfloat16 ? run(latentdem::BFloat16{}) : run(float{});
        },
        py::kw_only(), py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("y"), py::arg("mean"), py::arg("rstd"),
        py::arg("batch"), py::arg("channels"), py::arg("spatial"), py::arg("groups"), py::arg("channels_last"),
        py::arg("bfloat16"), py::arg("eps"), py::arg("threads"), py::call_guard<py::gil_scoped_release>());

    module.def(
        "group_norm_silu_backward",
        [](Address grad, Address x, Address weight, Address bias, Address mean, Address rstd, Address grad_x,
           Address grad_weight, Address grad_bias, int64_t batch, int64_t channels, int64_t spatial, int64_t groups,
           bool channels_last, bool bfloat16, int threads) {
            const auto run = [&](auto storage) {
                using T = decltype(storage);
                const latentdem::GroupNormSiluBackward<T> op{{batch, channels, spatial, groups, channels_last, threads},
                                                             pointer<const T>(grad),
                                                             pointer<const T>(x),
                                                             pointer<const float>(weight),
                                                             pointer<const float>(bias),
                                                             pointer<const float>(mean),
                                                             pointer<const float>(rstd),
                                                             pointer<T>(grad_x),
                                                             pointer<double>(grad_weight),
                                                             pointer<double>(grad_bias)};
                latentdem::group_norm_silu_backward(op);
            };
            bfloat16 ? run(latentdem::BFloat16{}) : run(float{});
        },
        py::kw_only(), py::arg("grad"), py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("mean"),
        py::arg("rstd"), py::arg("grad_x"), py::arg("grad_weight"), py::arg("grad_bias"), py::arg("batch"),
        py::arg("channels"), py::arg("spatial"), py::arg("groups"), py::arg("channels_last"), py::arg("bfloat16"),
        py::arg("threads"), py::call_guard<py::gil_scoped_release>());

    module.def(
        "transpose",
        [](Address from, Address to, int64_t batch, int64_t rows, int64_t columns, int item_size, int threads) {
            latentdem::transpose(pointer<const void>(from), pointer<void>(to), batch, rows, columns, item_size,
                                 threads);
        },
        py::kw_only(), py::arg("from_"), py::arg("to"), py::arg("batch"), py::arg("rows"), py::arg("columns"),
        py::arg("item_size"), py::arg("threads"), py::call_guard<py::gil_scoped_release>());

    module.def(
        "winograd",
        [](Address x, Address u, Address bias, Address y, int64_t batch, int64_t height, int64_t width,
           int64_t channels, int64_t outputs, bool doubled, int threads) {
            latentdem::convolve({pointer<const float>(x), pointer<const float>(u), pointer<const float>(bias),
                                 pointer<float>(y), batch, height, width, channels, outputs, doubled},
                                threads);
        },
        py::kw_only(), py::arg("x"), py::arg("u"), py::arg("bias"), py::arg("y"), py::arg("batch"), py::arg("height"),
        py::arg("width"), py::arg("channels"), py::arg("outputs"), py::arg("doubled"), py::arg("threads"),
        py::call_guard<py::gil_scoped_release>());

    latentdem::bind_frustum(module);
}
