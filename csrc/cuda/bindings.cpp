// Python bindings of the CUDA operations. Tensors come as addresses in device memory (0 for an absent one) that
// latentdem_ext has checked and keeps alive; no PyTorch header is needed, so one build serves every PyTorch version.

#include <array>
#include <stdexcept>
#include <string>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "blur_columns.hpp"
#include "blur_residual.hpp"
#include "hqs_finish.hpp"
#include "hqs_kernel_update.hpp"
#include "hqs_lags.hpp"
#include "hqs_m_step.hpp"
#include "hqs_prepare.hpp"
#include "masked_kernel.hpp"
#include "masked_proximal.hpp"

namespace py = pybind11;
namespace cuda = latentdem::cuda;

namespace {

using Address = std::uintptr_t;
using std::int64_t;

template <class T>
T *pointer(Address address) {
    return reinterpret_cast<T *>(address);
}

void check(const char *operation, cudaError_t error) {
    if (error == cudaSuccess)
        return;
    cudaGetLastError(); // clears the error: the next launch must not report it again
    throw std::runtime_error(std::string(operation) + ": " + cudaGetErrorString(error));
}

// Launches on `device`, then makes the device current again that was so before.
template <class Params>
void run(const char *operation, const Params &params, int device, Address stream) {
    int before = 0;
    check(operation, cudaGetDevice(&before));
    check(operation, cudaSetDevice(device));
    const cudaError_t error = cuda::launch(params, pointer<CUstream_st>(stream));
    check(operation, cudaSetDevice(before));
    check(operation, error);
}

} // namespace

PYBIND11_MODULE(_cuda, module) {
    module.doc() = "Operations on contiguous arrays in CUDA device memory, for latentdem_ext.";
    module.attr("oldest_architecture") = LATENTDEM_OLDEST_ARCHITECTURE;

    module.def(
        "hqs_kernel_update",
        [](Address kernel, Address data_term, Address filter, Address updated, int64_t batch, int size, int side,
           bool project, int iterations, int device, Address stream) {
            run("hqs_kernel_update",
                cuda::HqsKernelUpdate{pointer<const float>(kernel), pointer<const float>(data_term),
                                      pointer<const float>(filter), pointer<float>(updated), batch, size, side, project,
                                      iterations},
                device, stream);
        },
        py::kw_only(), py::arg("kernel"), py::arg("data_term"), py::arg("filter"), py::arg("updated"), py::arg("batch"),
        py::arg("size"), py::arg("side"), py::arg("project"), py::arg("iterations"), py::arg("device"),
        py::arg("stream"), py::call_guard<py::gil_scoped_release>());

    module.def(
        "hqs_m_step_workspace",
        [](int64_t batch, int size) {
            cuda::HqsMStep problem{};
            problem.batch = batch;
            problem.size = size;
            return cuda::workspace_bytes(problem);
        },
        py::kw_only(), py::arg("batch"), py::arg("size"));

    module.def(
        "hqs_m_step",
        [](Address kernel, Address data_term, Address filter, Address level,
           const std::array<Address, cuda::kDenoiserLayers> &weights,
           const std::array<Address, cuda::kDenoiserLayers> &biases, Address updated, Address workspace, int64_t batch,
           int size, int side, bool relative, int iterations, int device, Address stream) {
            cuda::HqsMStep problem{pointer<const float>(kernel),
                                   pointer<const float>(data_term),
                                   pointer<const float>(filter),
                                   pointer<const float>(level),
                                   {},
                                   {},
                                   pointer<float>(updated),
                                   pointer<void>(workspace),
                                   batch,
                                   size,
                                   side,
                                   relative,
                                   iterations};
            for (std::size_t layer = 0; layer < weights.size(); ++layer) {
                problem.weights[layer] = pointer<const float>(weights[layer]);
                problem.biases[layer] = pointer<const float>(biases[layer]);
            }
            run("hqs_m_step", problem, device, stream);
        },
        py::kw_only(), py::arg("kernel"), py::arg("data_term"), py::arg("filter"), py::arg("level"), py::arg("weights"),
        py::arg("biases"), py::arg("updated"), py::arg("workspace"), py::arg("batch"), py::arg("size"), py::arg("side"),
        py::arg("relative"), py::arg("iterations"), py::arg("device"), py::arg("stream"),
        py::call_guard<py::gil_scoped_release>());

    module.def(
        "hqs_finish",
        [](Address response, Address data_term, Address updated, int64_t batch, int size, int side, bool project,
           int device, Address stream) {
            run("hqs_finish",
                cuda::HqsFinish{pointer<const float>(response), pointer<const float>(data_term),
                                pointer<float>(updated), batch, size, side, project},
                device, stream);
        },
        py::kw_only(), py::arg("response"), py::arg("data_term"), py::arg("updated"), py::arg("batch"), py::arg("size"),
        py::arg("side"), py::arg("project"), py::arg("device"), py::arg("stream"),
        py::call_guard<py::gil_scoped_release>());

    module.def(
        "hqs_solve",
        [](Address x_hat, Address y_hat, Address weight, Address spectra, int64_t batch, int64_t samples,
           int64_t channels, int64_t points, int parts, bool per_channel, int device, Address stream) {
            run("hqs_solve",
                cuda::HqsSolve{pointer<const float2>(x_hat), pointer<const float2>(y_hat), pointer<const float>(weight),
                               pointer<float2>(spectra), batch, samples, channels, points, parts, per_channel},
                device, stream);
        },
        py::kw_only(), py::arg("x_hat"), py::arg("y_hat"), py::arg("weight"), py::arg("spectra"), py::arg("batch"),
        py::arg("samples"), py::arg("channels"), py::arg("points"), py::arg("parts"), py::arg("per_channel"),
        py::arg("device"), py::arg("stream"), py::call_guard<py::gil_scoped_release>());

    module.def(
        "hqs_lags",
        [](Address rows, Address y_hat, Address weight, Address lags, int64_t batch, int64_t samples, int64_t channels,
           int height, int width, int size, bool per_channel, int device, Address stream) {
            run("hqs_lags",
                cuda::HqsLags{pointer<const float2>(rows), pointer<const float2>(y_hat), pointer<const float>(weight),
                              pointer<float2>(lags), batch, samples, channels, height, width, size, per_channel},
                device, stream);
        },
        py::kw_only(), py::arg("rows"), py::arg("y_hat"), py::arg("weight"), py::arg("lags"), py::arg("batch"),
        py::arg("samples"), py::arg("channels"), py::arg("height"), py::arg("width"), py::arg("size"),
        py::arg("per_channel"), py::arg("device"), py::arg("stream"), py::call_guard<py::gil_scoped_release>());

    module.def(
        "hqs_crop",
        [](Address solution, Address response, Address data_term, Address padded, int64_t batch, int64_t height,
           int64_t width, int size, int side, int parts, int device, Address stream) {
            run("hqs_crop",
                cuda::HqsCrop{pointer<const float>(solution), pointer<const float>(response), pointer<float>(data_term),
                              pointer<float>(padded), batch, height, width, size, side, parts},
                device, stream);
        },
        py::kw_only(), py::arg("solution"), py::arg("response"), py::arg("data_term"), py::arg("padded"),
        py::arg("batch"), py::arg("height"), py::arg("width"), py::arg("size"), py::arg("side"), py::arg("parts"),
        py::arg("device"), py::arg("stream"), py::call_guard<py::gil_scoped_release>());

    module.def(
        "blur_residual",
        [](Address spectrum, Address y_hat, Address otf, Address rho, Address norm2, int64_t batch, int64_t channels,
           int height, int width, int parts, int device, Address stream) {
            run("blur_residual",
                cuda::BlurResidual{pointer<float2>(spectrum), pointer<const float2>(y_hat), pointer<const float2>(otf),
                                   pointer<const float>(rho), pointer<float>(norm2), batch, channels, height, width,
                                   parts},
                device, stream);
        },
        py::kw_only(), py::arg("spectrum"), py::arg("y_hat"), py::arg("otf"), py::arg("rho"), py::arg("norm2"),
        py::arg("batch"), py::arg("channels"), py::arg("height"), py::arg("width"), py::arg("parts"), py::arg("device"),
        py::arg("stream"), py::call_guard<py::gil_scoped_release>());

    module.def(
        "blur_columns",
        [](Address rows, Address kernel, Address y_hat, Address rho, Address norm2, int64_t batch, int64_t channels,
           int height, int width, int size, int parts, int device, Address stream) {
            run("blur_columns",
                cuda::BlurColumns{pointer<float2>(rows), pointer<const float>(kernel), pointer<const float2>(y_hat),
                                  pointer<const float>(rho), pointer<float>(norm2), batch, channels, height, width,
                                  size, parts},
                device, stream);
        },
        py::kw_only(), py::arg("rows"), py::arg("kernel"), py::arg("y_hat"), py::arg("rho"), py::arg("norm2"),
        py::arg("batch"), py::arg("channels"), py::arg("height"), py::arg("width"), py::arg("size"), py::arg("parts"),
        py::arg("device"), py::arg("stream"), py::call_guard<py::gil_scoped_release>());

    module.def(
        "blur_glue",
        [](Address correction, Address x, Address glued, int64_t count, int device, Address stream) {
            run("blur_glue",
                cuda::BlurGlue{pointer<float>(correction), pointer<const float>(x), pointer<float>(glued), count},
                device, stream);
        },
        py::kw_only(), py::arg("correction"), py::arg("x"), py::arg("glued"), py::arg("count"), py::arg("device"),
        py::arg("stream"), py::call_guard<py::gil_scoped_release>());

    module.def("has_grid", &cuda::has_grid, py::arg("height"), py::arg("width"));

    module.def(
        "masked_proximal_workspace",
        [](int64_t batch, int64_t channels, int height, int width) {
            cuda::MaskedProximal problem{};
            problem.batch = batch;
            problem.channels = channels;
            problem.height = height;
            problem.width = width;
            return cuda::workspace_bytes(problem);
        },
        py::kw_only(), py::arg("batch"), py::arg("channels"), py::arg("height"), py::arg("width"));

    module.def(
        "masked_proximal",
        [](Address x0, Address y, Address fill, Address mask, Address kernel, Address rho, Address x, Address filled,
           Address workspace, int64_t batch, int64_t masks, int64_t channels, int height, int width, int size,
           int iterations, double tolerance, double caution, double caution_with_holes, double rounding, double least,
           int device, Address stream) {
            run("masked_proximal",
                cuda::MaskedProximal{pointer<const float>(x0),
                                     pointer<const float>(y),
                                     pointer<const float>(fill),
                                     pointer<const float>(mask),
                                     pointer<const float>(kernel),
                                     pointer<const float>(rho),
                                     pointer<float>(x),
                                     pointer<float>(filled),
                                     pointer<void>(workspace),
                                     batch,
                                     masks,
                                     channels,
                                     height,
                                     width,
                                     size,
                                     iterations,
                                     tolerance,
                                     caution,
                                     caution_with_holes,
                                     rounding,
                                     least},
                device, stream);
        },
        py::kw_only(), py::arg("x0"), py::arg("y"), py::arg("fill"), py::arg("mask"), py::arg("kernel"), py::arg("rho"),
        py::arg("x"), py::arg("filled"), py::arg("workspace"), py::arg("batch"), py::arg("masks"), py::arg("channels"),
        py::arg("height"), py::arg("width"), py::arg("size"), py::arg("iterations"), py::arg("tolerance"),
        py::arg("caution"), py::arg("caution_with_holes"), py::arg("rounding"), py::arg("least"), py::arg("device"),
        py::arg("stream"), py::call_guard<py::gil_scoped_release>());

    module.def(
        "masked_kernel_solve_workspace",
        [](int64_t batch, int64_t images, int height, int width, int size) {
            cuda::MaskedKernel problem{};
            problem.batch = batch;
            problem.images = images;
            problem.height = height;
            problem.width = width;
            problem.size = size;
            return cuda::workspace_bytes(problem);
        },
        py::kw_only(), py::arg("batch"), py::arg("images"), py::arg("height"), py::arg("width"), py::arg("size"));

    module.def(
        "masked_kernel_solve",
        [](Address x, Address mask, Address weight, Address right, Address factor, Address solution, Address residual,
           Address workspace, int64_t batch, int64_t masks, int64_t images, int height, int width, int size,
           int iterations, double allowed, int device, Address stream) {
            run("masked_kernel_solve",
                cuda::MaskedKernel{pointer<const float>(x), pointer<const float>(mask), pointer<const float>(weight),
                                   pointer<const float>(right), pointer<const float>(factor), pointer<float>(solution),
                                   pointer<float>(residual), pointer<void>(workspace), batch, masks, images, height,
                                   width, size, iterations, allowed},
                device, stream);
        },
        py::kw_only(), py::arg("x"), py::arg("mask"), py::arg("weight"), py::arg("right"), py::arg("factor"),
        py::arg("solution"), py::arg("residual"), py::arg("workspace"), py::arg("batch"), py::arg("masks"),
        py::arg("images"), py::arg("height"), py::arg("width"), py::arg("size"), py::arg("iterations"),
        py::arg("allowed"), py::arg("device"), py::arg("stream"), py::call_guard<py::gil_scoped_release>());
}
