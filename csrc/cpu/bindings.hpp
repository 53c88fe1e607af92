// How the bindings take tensors: as addresses (0 for an absent one) that latentdem_ext has checked and keeps alive.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

namespace latentdem {

using Address = std::uintptr_t;

template <class T>
T *pointer(Address address) {
    return reinterpret_cast<T *>(address);
}

void bind_frustum(pybind11::module_ &module);

} // namespace latentdem
