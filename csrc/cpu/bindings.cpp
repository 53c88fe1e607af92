#include "bindings.hpp"

PYBIND11_MODULE(_cpu, module) {
    module.doc() = "Operations on contiguous arrays in CPU memory, for latentdem_ext.";
    for (const latentdem::Binding::Bind bind : latentdem::Binding::all())
        bind(module);
}
