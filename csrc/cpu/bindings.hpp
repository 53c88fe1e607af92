// What the Python bindings of the operations share. Tensors come as addresses (0 for an absent one) that latentdem_ext
// has checked and keeps alive; no PyTorch header is needed, so one build serves every PyTorch version.
#pragma once

#include <cstdint>
#include <vector>

#include <pybind11/pybind11.h>

namespace latentdem {

using Address = std::uintptr_t;

template <class T>
T *pointer(Address address) {
    return reinterpret_cast<T *>(address);
}

// Adds the functions of a source file to the module, so that no list names the operations: each file has one static
// object of this class.
class Binding {
  public:
    using Bind = void (*)(pybind11::module_ &);

    explicit Binding(Bind bind) { all().push_back(bind); }

    static std::vector<Bind> &all() {
        static std::vector<Bind> binds;
        return binds;
    }
};

} // namespace latentdem
