// What the Python faces of the operations share. Tensors come as addresses (0 for an absent one) that latentdem_ext
// has checked and keeps alive; no PyTorch header is needed, so one build serves every PyTorch version.
#pragma once

#include <cstdint>

#include <pybind11/pybind11.h>

namespace latentdem {

using Address = std::uintptr_t;

template <class T>
T *pointer(Address address) {
    return reinterpret_cast<T *>(address);
}

// Each adds the operation of its file to the module.
void bind_blur(pybind11::module_ &module);
void bind_dps_step(pybind11::module_ &module);
void bind_group_norm_silu(pybind11::module_ &module);
void bind_group_norm_silu_backward(pybind11::module_ &module);
void bind_hqs_prepare(pybind11::module_ &module);
void bind_hqs_update(pybind11::module_ &module);
void bind_renoise(pybind11::module_ &module);
void bind_transpose(pybind11::module_ &module);
void bind_winograd(pybind11::module_ &module);

} // namespace latentdem
