// Python face of the CPU operations. Tensors come as addresses (0 for an absent one) that latentdem_ext has
// checked and keeps alive; no PyTorch header is needed, so one build serves every PyTorch version.

#include <pybind11/pybind11.h>

#include "dps_step.hpp"

namespace py = pybind11;

namespace {

using Address = std::uintptr_t;

template <class T>
T *pointer(Address address) {
    return reinterpret_cast<T *>(address);
}

} // namespace

PYBIND11_MODULE(_cpu, module) {
    module.doc() = "Operations on contiguous arrays in CPU memory, for latentdem_ext.";

    module.def(
        "dps_step",
        [](Address z_t, Address eps, Address eps_uncond, Address noise, Address gradient, Address abar_t,
           Address abar_prev, Address step_size, Address z_prev, Address z0, std::int64_t batch, std::int64_t numel,
           double guidance, double eta, int threads) {
            latentdem::dps_step({pointer<const float>(z_t), pointer<const float>(eps),
                                 pointer<const float>(eps_uncond), pointer<const float>(noise),
                                 pointer<const float>(gradient), pointer<const double>(abar_t),
                                 pointer<const double>(abar_prev), pointer<const double>(step_size),
                                 pointer<float>(z_prev), pointer<float>(z0), batch, numel, guidance, eta, threads});
        },
        py::kw_only(), py::arg("z_t"), py::arg("eps"), py::arg("eps_uncond"), py::arg("noise"), py::arg("gradient"),
        py::arg("abar_t"), py::arg("abar_prev"), py::arg("step_size"), py::arg("z_prev"), py::arg("z0"),
        py::arg("batch"), py::arg("numel"), py::arg("guidance"), py::arg("eta"), py::arg("threads"),
        py::call_guard<py::gil_scoped_release>());
}
