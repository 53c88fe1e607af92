#include "bindings.hpp"

PYBIND11_MODULE(_cpu, module) {
    module.doc() = "Operations on contiguous arrays in CPU memory, for latentdem_ext.";
    latentdem::bind_blur(module);
    latentdem::bind_dps_step(module);
    latentdem::bind_group_norm_silu(module);
    latentdem::bind_group_norm_silu_backward(module);
    latentdem::bind_hqs_prepare(module);
    latentdem::bind_hqs_update(module);
    latentdem::bind_renoise(module);
    latentdem::bind_transpose(module);
    latentdem::bind_winograd(module);
}
