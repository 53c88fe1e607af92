// Python bindings of the operations on volumes in frustums.

#include "bindings.hpp"
#include "frustum.hpp"

namespace py = pybind11;

namespace latentdem {

using std::int64_t;

void bind_frustum(py::module_ &module) {
    module.def(
        "frustum_resample",
        [](Address volume, Address matrix, Address distances, Address resampled, int64_t batch, int64_t channels,
           int64_t depth, int64_t height, int64_t width, int threads) {
            frustum_resample({batch, channels, depth, height, width, threads},
                             {pointer<const float>(matrix), pointer<const float>(distances)},
                             pointer<const float>(volume), pointer<float>(resampled));
        },
        py::kw_only(), py::arg("volume"), py::arg("matrix"), py::arg("distances"), py::arg("resampled"),
        py::arg("batch"), py::arg("channels"), py::arg("depth"), py::arg("height"), py::arg("width"),
        py::arg("threads"), py::call_guard<py::gil_scoped_release>());

    module.def(
        "frustum_resample_backward",
        [](Address volume, Address matrix, Address distances, Address grad, Address grad_volume, Address grad_cameras,
           int64_t batch, int64_t channels, int64_t depth, int64_t height, int64_t width, int threads) {
            frustum_resample_backward({batch, channels, depth, height, width, threads},
                                      {pointer<const float>(matrix), pointer<const float>(distances)},
                                      pointer<const float>(volume), pointer<const float>(grad),
                                      pointer<float>(grad_volume), pointer<double>(grad_cameras));
        },
        py::kw_only(), py::arg("volume"), py::arg("matrix"), py::arg("distances"), py::arg("grad"),
        py::arg("grad_volume") = 0, py::arg("grad_cameras"), py::arg("batch"), py::arg("channels"), py::arg("depth"),
        py::arg("height"), py::arg("width"), py::arg("threads"), py::call_guard<py::gil_scoped_release>());

    module.def(
        "frustum_hits",
        [](Address opacity, Address matrix, Address distances, Address hit, int64_t batch, int64_t channels,
           int64_t depth, int64_t height, int64_t width, int threads) {
            frustum_hits({batch, channels, depth, height, width, threads},
                         {pointer<const float>(matrix), pointer<const float>(distances)}, pointer<const float>(opacity),
                         pointer<float>(hit));
        },
        py::kw_only(), py::arg("opacity"), py::arg("matrix"), py::arg("distances"), py::arg("hit"), py::arg("batch"),
        py::arg("channels"), py::arg("depth"), py::arg("height"), py::arg("width"), py::arg("threads"),
        py::call_guard<py::gil_scoped_release>());

    module.def(
        "frustum_hits_backward",
        [](Address opacity, Address matrix, Address distances, Address grad, Address grad_opacity, Address grad_cameras,
           int64_t batch, int64_t channels, int64_t depth, int64_t height, int64_t width, int threads) {
            frustum_hits_backward({batch, channels, depth, height, width, threads},
                                  {pointer<const float>(matrix), pointer<const float>(distances)},
                                  pointer<const float>(opacity), pointer<const float>(grad),
                                  pointer<float>(grad_opacity), pointer<double>(grad_cameras));
        },
        py::kw_only(), py::arg("opacity"), py::arg("matrix"), py::arg("distances"), py::arg("grad"),
        py::arg("grad_opacity") = 0, py::arg("grad_cameras"), py::arg("batch"), py::arg("channels"), py::arg("depth"),
        py::arg("height"), py::arg("width"), py::arg("threads"), py::call_guard<py::gil_scoped_release>());
}

} // namespace latentdem
