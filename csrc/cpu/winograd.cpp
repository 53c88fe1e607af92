// Tiles of all images are numbered in one row. A thread takes BLOCK of them at a time, so that their transforms stay in
// its cache: it transforms 6 x 6 inputs of each tile, multiplies 36 matrices, tiles x channels by channels x outputs,
// and transforms the products.
//
// The interpolation points are 0, +-5/8, +-3/2 and infinity: the transforms are exact in binary, and the rounding is
// half of that of the usual points 0, +-1, +-2 (Barabasz et al. 2020 show how much the points matter).
#include "winograd.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "multiversion.hpp"
#include "parallel.hpp"

namespace latentdem {
namespace {

constexpr std::int64_t SIDE = 4; // of the outputs of a tile
constexpr std::int64_t READ = 6; // side of its inputs
constexpr std::int64_t PLANES = 36;
constexpr std::int64_t LANES = 16; // outputs in a panel of the kernel
constexpr std::int64_t BLOCK = 12; // tiles, a multiple of the rows of a register block

constexpr float A = 0.625f, B = 1.5f; // the points
constexpr float A2 = A * A, B2 = B * B, SUM = A2 + B2, PRODUCT = A2 * B2;

using Six = std::array<float, 6>;

// B^T d of six values.
LATENTDEM_INLINE Six interpolate(const Six &d) {
    const float even_a = d[4] - B2 * d[2], odd_a = A * (d[3] - B2 * d[1]);
    const float even_b = d[4] - A2 * d[2], odd_b = B * (d[3] - A2 * d[1]);
    return {PRODUCT * d[0] - SUM * d[2] + d[4], even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b,
            PRODUCT * d[1] - SUM * d[3] + d[5]};
}

// A^T m of six values.
LATENTDEM_INLINE std::array<float, SIDE> evaluate(const Six &m) {
    const float even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
    return {m[0] + even_a + even_b, A * odd_a + B * odd_b, A2 * even_a + B2 * even_b,
            A2 * A * odd_a + B2 * B * odd_b + m[5]};
}

// V = B^T d B of `count` channels of one tile; pixels[6 * i + j] is the channels of one input.
LATENTDEM_INLINE void transform_channels(const std::array<const float *, PLANES> &pixels, float *v, std::int64_t plane,
                                         std::int64_t c, std::int64_t count) {
    float t[READ][READ][LANES];
    for (int j = 0; j < READ; ++j) {
        LATENTDEM_INDEPENDENT
        for (std::int64_t l = 0; l < count; ++l) {
            const Six column = interpolate({pixels[j][c + l], pixels[6 + j][c + l], pixels[12 + j][c + l],
                                            pixels[18 + j][c + l], pixels[24 + j][c + l], pixels[30 + j][c + l]});
            for (int i = 0; i < READ; ++i)
                t[i][j][l] = column[i];
        }
    }
    for (int i = 0; i < READ; ++i) {
        float *to = v + READ * i * plane + c;
        LATENTDEM_INDEPENDENT
        for (std::int64_t l = 0; l < count; ++l) {
            const Six row = interpolate({t[i][0][l], t[i][1][l], t[i][2][l], t[i][3][l], t[i][4][l], t[i][5][l]});
            for (int j = 0; j < READ; ++j)
                to[j * plane + l] = row[j];
        }
    }
}

LATENTDEM_MULTIVERSION void transform_input(const std::array<const float *, PLANES> &pixels, float *v,
                                            std::int64_t plane, std::int64_t channels) {
    std::int64_t c = 0;
    for (; c + LANES <= channels; c += LANES)
        transform_channels(pixels, v, plane, c, LANES);
    transform_channels(pixels, v, plane, c, channels - c);
}

// y = A^T m A + bias of `count` outputs of one tile; pixels[4 * i + j] is the outputs of one pixel.
LATENTDEM_INLINE void transform_outputs(const float *m, std::int64_t plane, const float *bias,
                                        const std::array<float *, SIDE * SIDE> &pixels, std::int64_t o,
                                        std::int64_t count) {
    float t[SIDE][READ][LANES];
    for (int j = 0; j < READ; ++j) {
        const float *from = m + j * plane + o;
        LATENTDEM_INDEPENDENT
        for (std::int64_t l = 0; l < count; ++l) {
            const auto column = evaluate({from[l], from[6 * plane + l], from[12 * plane + l], from[18 * plane + l],
                                          from[24 * plane + l], from[30 * plane + l]});
            for (int i = 0; i < SIDE; ++i)
                t[i][j][l] = column[i];
        }
    }
    for (int i = 0; i < SIDE; ++i) {
        LATENTDEM_INDEPENDENT
        for (std::int64_t l = 0; l < count; ++l) {
            const auto row = evaluate({t[i][0][l], t[i][1][l], t[i][2][l], t[i][3][l], t[i][4][l], t[i][5][l]});
            for (int j = 0; j < SIDE; ++j)
                pixels[SIDE * i + j][o + l] = row[j] + bias[o + l];
        }
    }
}

LATENTDEM_MULTIVERSION void transform_output(const float *m, std::int64_t plane, const float *bias,
                                             const std::array<float *, SIDE * SIDE> &pixels, std::int64_t outputs) {
    std::int64_t o = 0;
    for (; o + LANES <= outputs; o += LANES)
        transform_outputs(m, plane, bias, pixels, o, LANES);
    transform_outputs(m, plane, bias, pixels, o, outputs - o);
}

// ROWS x LANES products of ROWS tiles and a panel, all in registers of WIDTH values.
template <int ROWS, int WIDTH>
LATENTDEM_INLINE void multiply_block(const float *rows, const float *panel, float *to, std::int64_t channels,
                                     std::int64_t to_stride) {
#if defined(__GNUC__)
    typedef float Register __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
#else
    static_assert(WIDTH == 1, "vectors need an extension of the compiler");
    typedef float Register;
#endif
    constexpr int COUNT = LANES / WIDTH;
    Register sums[ROWS][COUNT] = {};
    for (std::int64_t c = 0; c < channels; ++c) {
        const Register *b = reinterpret_cast<const Register *>(panel + c * LANES);
        LATENTDEM_UNROLL
        for (int r = 0; r < ROWS; ++r) {
            LATENTDEM_UNROLL
            for (int n = 0; n < COUNT; ++n)
                sums[r][n] += rows[r * channels + c] * b[n];
        }
    }
    for (int r = 0; r < ROWS; ++r)
        std::memcpy(to + r * to_stride, sums[r], sizeof(sums[r]));
}

// M = V U of one plane: BLOCK x channels by channels x outputs.
template <int ROWS, int WIDTH>
LATENTDEM_INLINE void multiply(const float *v, const float *u, float *m, std::int64_t channels, std::int64_t padded) {
    for (std::int64_t o = 0; o < padded; o += LANES)
        for (std::int64_t r = 0; r < BLOCK; r += ROWS)
            multiply_block<ROWS, WIDTH>(v + r * channels, u + o * channels, m + r * padded + o, channels, padded);
}

#if defined(__x86_64__) && defined(__GNUC__)
// With 32 registers of 16 values, and with 16 registers of 8 values.
LATENTDEM_MULTIVERSION void multiply_avx512(const float *v, const float *u, float *m, std::int64_t channels,
                                            std::int64_t padded) {
    multiply<12, 16>(v, u, m, channels, padded);
}
LATENTDEM_MULTIVERSION void multiply_avx2(const float *v, const float *u, float *m, std::int64_t channels,
                                          std::int64_t padded) {
    multiply<6, 8>(v, u, m, channels, padded);
}
#elif defined(__GNUC__)
void multiply_any(const float *v, const float *u, float *m, std::int64_t channels, std::int64_t padded) {
    multiply<6, 4>(v, u, m, channels, padded);
}
#else
void multiply_any(const float *v, const float *u, float *m, std::int64_t channels, std::int64_t padded) {
    multiply<2, 1>(v, u, m, channels, padded);
}
#endif

auto best_multiply() {
#if defined(__x86_64__) && defined(__GNUC__)
    return __builtin_cpu_supports("avx512f") ? multiply_avx512 : multiply_avx2;
#else
    return multiply_any;
#endif
}

std::int64_t across(const Convolution &a) { return (a.width + SIDE - 1) / SIDE; }
std::int64_t tiles(const Convolution &a) { return (a.height + SIDE - 1) / SIDE * across(a); } // of one image

// What one thread needs: transforms, products, a pixel of zeros, and one for outputs beyond the image.
struct Workspace {
    std::vector<float> v, m, zero, spare;
};

} // namespace

void convolve(const Convolution &a, int threads) {
    const std::int64_t total = a.batch * tiles(a), padded = (a.outputs + LANES - 1) / LANES * LANES;
    const auto size = [](std::int64_t count) { return static_cast<std::size_t>(count); };
    const Workspace blank{std::vector<float>(size(PLANES * BLOCK * a.channels)),
                          std::vector<float>(size(PLANES * BLOCK * padded)), std::vector<float>(size(a.channels)),
                          std::vector<float>(size(a.outputs))};
    const auto multiply_plane = best_multiply();
    parallel_for((total + BLOCK - 1) / BLOCK, 1, threads, blank, [&](std::int64_t block, Workspace &own) {
        const std::int64_t first = block * BLOCK, count = std::min(BLOCK, total - first);
        for (std::int64_t n = 0; n < count; ++n) {
            const std::int64_t image = (first + n) / tiles(a), tile = (first + n) % tiles(a);
            const std::int64_t top = tile / across(a) * SIDE - 1, left = tile % across(a) * SIDE - 1;
            const std::int64_t row = a.width >> a.doubled; // of x
            const float *x = a.x + image * (a.height >> a.doubled) * row * a.channels;
            std::array<const float *, PLANES> pixels;
            for (std::int64_t i = 0; i < READ; ++i)
                for (std::int64_t j = 0; j < READ; ++j) {
                    const std::int64_t r = top + i, c = left + j;
                    const bool inside = r >= 0 && r < a.height && c >= 0 && c < a.width;
                    pixels[size(READ * i + j)] =
                        inside ? x + ((r >> a.doubled) * row + (c >> a.doubled)) * a.channels : own.zero.data();
                }
            transform_input(pixels, own.v.data() + n * a.channels, BLOCK * a.channels, a.channels);
        }
        for (std::int64_t plane = 0; plane < PLANES; ++plane)
            multiply_plane(own.v.data() + plane * BLOCK * a.channels, a.u + plane * a.channels * padded,
                           own.m.data() + plane * BLOCK * padded, a.channels, padded);
        for (std::int64_t n = 0; n < count; ++n) {
            const std::int64_t image = (first + n) / tiles(a), tile = (first + n) % tiles(a);
            const std::int64_t top = tile / across(a) * SIDE, left = tile % across(a) * SIDE;
            float *y = a.y + image * a.height * a.width * a.outputs;
            std::array<float *, SIDE * SIDE> pixels;
            for (std::int64_t i = 0; i < SIDE; ++i)
                for (std::int64_t j = 0; j < SIDE; ++j) {
                    const std::int64_t r = top + i, c = left + j;
                    const bool inside = r < a.height && c < a.width;
                    pixels[size(SIDE * i + j)] = inside ? y + (r * a.width + c) * a.outputs : own.spare.data();
                }
            transform_output(own.m.data() + n * padded, BLOCK * padded, a.bias, pixels, a.outputs);
        }
    });
}

} // namespace latentdem
