// The two transforms of a 3 x 3 convolution by Winograd's F(2 x 2, 3 x 3) (Lavin and Gray 2016, Eq. 8-12): around the
// sixteen matrix products that PyTorch does, with 4 multiplications for each output and channel instead of 9.
//
// Images are channels last, height x width x channels. A tile makes 2 x 2 outputs of 4 x 4 inputs; pixels beyond the
// image are zero. Tiles come in a band of `rows` rows of them, the first one `top`: the tiled arrays are
// 16 x (rows * tiles in a row) x channels.

#include <array>
#include <vector>

#include "bindings.hpp"
#include "multiversion.hpp"
#include "parallel.hpp"

namespace latentdem {
namespace {

struct Band {
    std::int64_t height, width, channels, top, rows;

    std::int64_t across() const { return (width + 1) / 2; }
    std::int64_t plane() const { return rows * across() * channels; } // elements of one of the sixteen matrices
};

// V = B^T d B of one tile; pixels[4 * i + j] is the channels of one input.
LATENTDEM_MULTIVERSION void transform_input(const std::array<const float *, 16> &pixels, float *v, std::int64_t plane,
                                            std::int64_t channels) {
    LATENTDEM_INDEPENDENT
    for (std::int64_t c = 0; c < channels; ++c) {
        float t[4][4];
        for (int j = 0; j < 4; ++j) {
            const float d0 = pixels[j][c], d1 = pixels[4 + j][c], d2 = pixels[8 + j][c], d3 = pixels[12 + j][c];
            t[0][j] = d0 - d2;
            t[1][j] = d1 + d2;
            t[2][j] = d2 - d1;
            t[3][j] = d1 - d3;
        }
        for (int i = 0; i < 4; ++i) {
            float *to = v + 4 * i * plane + c;
            to[0] = t[i][0] - t[i][2];
            to[plane] = t[i][1] + t[i][2];
            to[2 * plane] = t[i][2] - t[i][1];
            to[3 * plane] = t[i][1] - t[i][3];
        }
    }
}

// y = A^T m A + bias of one tile; pixels[2 * i + j] is the channels of one output.
LATENTDEM_MULTIVERSION void transform_output(const float *m, const float *bias, const std::array<float *, 4> &pixels,
                                             std::int64_t plane, std::int64_t channels) {
    LATENTDEM_INDEPENDENT
    for (std::int64_t c = 0; c < channels; ++c) {
        float t[2][4];
        for (int j = 0; j < 4; ++j) {
            const float *from = m + j * plane + c;
            const float m0 = from[0], m1 = from[4 * plane], m2 = from[8 * plane], m3 = from[12 * plane];
            t[0][j] = m0 + m1 + m2;
            t[1][j] = m1 - m2 - m3;
        }
        for (int i = 0; i < 2; ++i) {
            pixels[2 * i][c] = t[i][0] + t[i][1] + t[i][2] + bias[c];
            pixels[2 * i + 1][c] = t[i][1] - t[i][2] - t[i][3] + bias[c];
        }
    }
}

// Calls body(first row, first column, offset, workspace) for every tile: of its outputs, and of it in a tiled array.
template <class Body>
void for_tiles(const Band &band, int threads, const Body &body) {
    const std::vector<float> workspace(static_cast<std::size_t>(band.channels), 0.0f);
    parallel_for(band.rows, 1, threads, workspace, [&](std::int64_t row, std::vector<float> &own) {
        for (std::int64_t column = 0; column < band.across(); ++column)
            body(2 * (band.top + row), 2 * column, (row * band.across() + column) * band.channels, own);
    });
}

void input_band(const Band &band, const float *x, float *v, int threads) {
    for_tiles(band, threads, [&](std::int64_t row, std::int64_t column, std::int64_t offset, std::vector<float> &zero) {
        std::array<const float *, 16> pixels;
        for (std::int64_t i = 0; i < 4; ++i)
            for (std::int64_t j = 0; j < 4; ++j) {
                const std::int64_t r = row + i - 1, c = column + j - 1;
                const bool inside = r >= 0 && r < band.height && c >= 0 && c < band.width;
                pixels[static_cast<std::size_t>(4 * i + j)] =
                    inside ? x + (r * band.width + c) * band.channels : zero.data();
            }
        transform_input(pixels, v + offset, band.plane(), band.channels);
    });
}

void output_band(const Band &band, const float *m, const float *bias, float *y, int threads) {
    for_tiles(band, threads,
              [&](std::int64_t row, std::int64_t column, std::int64_t offset, std::vector<float> &spare) {
                  std::array<float *, 4> pixels;
                  for (std::int64_t i = 0; i < 2; ++i)
                      for (std::int64_t j = 0; j < 2; ++j) {
                          const std::int64_t r = row + i, c = column + j;
                          const bool inside = r < band.height && c < band.width;
                          pixels[static_cast<std::size_t>(2 * i + j)] =
                              inside ? y + (r * band.width + c) * band.channels : spare.data();
                      }
                  transform_output(m + offset, bias, pixels, band.plane(), band.channels);
              });
}

} // namespace

static void bind(pybind11::module_ &module) {
    namespace py = pybind11;
    module.def(
        "winograd_input",
        [](Address x, Address v, std::int64_t height, std::int64_t width, std::int64_t channels, std::int64_t top,
           std::int64_t rows, int threads) {
            input_band({height, width, channels, top, rows}, pointer<const float>(x), pointer<float>(v), threads);
        },
        py::kw_only(), py::arg("x"), py::arg("v"), py::arg("height"), py::arg("width"), py::arg("channels"),
        py::arg("top"), py::arg("rows"), py::arg("threads"), py::call_guard<py::gil_scoped_release>());
    module.def(
        "winograd_output",
        [](Address m, Address bias, Address y, std::int64_t height, std::int64_t width, std::int64_t channels,
           std::int64_t top, std::int64_t rows, int threads) {
            output_band({height, width, channels, top, rows}, pointer<const float>(m), pointer<const float>(bias),
                        pointer<float>(y), threads);
        },
        py::kw_only(), py::arg("m"), py::arg("bias"), py::arg("y"), py::arg("height"), py::arg("width"),
        py::arg("channels"), py::arg("top"), py::arg("rows"), py::arg("threads"),
        py::call_guard<py::gil_scoped_release>());
}

static const Binding binding(bind);

} // namespace latentdem
