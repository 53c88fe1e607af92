#include "group_norm_tiles.hpp"

#include <algorithm>
#include <cstring>

#include "multiversion.hpp"

namespace latentdem {
namespace {

template <class To, class From>
LATENTDEM_INLINE To bits_of(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

LATENTDEM_INLINE float read(const float &from) { return from; }
LATENTDEM_INLINE float read(const BFloat16 &from) {
    return bits_of<float>(static_cast<std::uint32_t>(from.bits) << 16);
}
LATENTDEM_INLINE void write(float &to, float value) { to = value; }
LATENTDEM_INLINE void write(BFloat16 &to, float value) { // to the nearest, ties to even
    const std::uint32_t bits = bits_of<std::uint32_t>(value);
    const std::uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    to.bits = static_cast<std::uint16_t>(value == value ? rounded : 0x7fc0); // the one NaN is quiet
}

// exp(-u), relative error below 4e-7, clamped to [exp(-87), exp(87)], which keeps the sigmoid a normal number.
// exp(t) = 2^n exp(r) with n the integer next to t / ln 2: adding 1.5 * 2^23 rounds, and leaves n in the low bits
// of the sum. ln 2 is subtracted in two parts, of which the first times n is exact. The polynomial is the minimax
// approximation of exp(r) in relative error on |r| <= ln 2 / 2, found by a Remez exchange (7.6e-8).
LATENTDEM_INLINE float exp_minus(float u) {
    constexpr float kPerLn2 = 0x1.715476p+0f, kRound = 0x1.8p+23f;
    constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
    // Clamped as an integer: the compiler splits the loop at a comparison of floats.
    constexpr std::uint32_t kBound = 0x42ae0000, kSign = 0x80000000; // 87.0f
    const auto bits = bits_of<std::uint32_t>(u);
    const auto t = bits_of<float>(std::min(bits & ~kSign, kBound) | (~bits & kSign));
    const float shifted = t * kPerLn2 + kRound;
    const float n = shifted - kRound;
    const float r = (t - n * kLn2High) - n * kLn2Low;
    float p = 0x1.0fe57ap-7f;
    p = p * r + 0x1.575f72p-5f;
    p = p * r + 0x1.555a1ap-3f;
    p = p * r + 0x1.fffd18p-2f;
    p = p * r + 0x1.fffff6p-1f;
    p = p * r + 0x1.000002p+0f;
    return p * bits_of<float>((bits_of<std::uint32_t>(shifted) << 23) + (std::uint32_t{127} << 23));
}

// grad * silu'(u), silu'(u) = s (1 + u (1 - s)) with the sigmoid s = 1 / (1 + e), 1 - s = e s, e = exp(-u).
LATENTDEM_INLINE float through_silu(float grad, float u) {
    const float e = exp_minus(u);
    const float s = 1.0f / (1.0f + e);
    return grad * (s * (1.0f + u * (e * s)));
}

template <class T>
LATENTDEM_INLINE void moments(const T *x, std::int64_t rows, std::int64_t lanes, std::int64_t before, double *mean,
                              double *square) {
    // Deviations from the rounded mean of the tile: nothing cancels, whatever the mean.
    float pivot[kTile], drift[kTile], squares[kTile];
    for (std::int64_t l = 0; l < lanes; ++l)
        pivot[l] = drift[l] = squares[l] = 0.0f;
    for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t l = 0; l < lanes; ++l)
            pivot[l] += read(x[r * lanes + l]);
    const float per_row = 1.0f / static_cast<float>(rows);
    for (std::int64_t l = 0; l < lanes; ++l)
        pivot[l] *= per_row;
    for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t l = 0; l < lanes; ++l) {
            const float deviation = read(x[r * lanes + l]) - pivot[l];
            drift[l] += deviation;
            squares[l] += deviation * deviation;
        }
    const double count = static_cast<double>(rows), share = count / static_cast<double>(before + rows);
    const double weight = static_cast<double>(before) * share;
    for (std::int64_t l = 0; l < lanes; ++l) {
        const double off = static_cast<double>(drift[l]) / count;
        const double apart = static_cast<double>(pivot[l]) + off - mean[l];
        square[l] += static_cast<double>(squares[l]) - off * off * count + apart * apart * weight;
        mean[l] += apart * share;
    }
}

template <class T>
LATENTDEM_INLINE void silu(const T *x, T *__restrict y, std::int64_t rows, std::int64_t lanes, const Affine &affine) {
    const float *const mean = affine.mean, *const scale = affine.scale, *const shift = affine.shift;
    for (std::int64_t r = 0; r < rows; ++r, x += lanes, y += lanes)
        for (std::int64_t l = 0; l < lanes; ++l) {
            const float u = (read(x[l]) - mean[l]) * scale[l] + shift[l];
            write(y[l], u / (1.0f + exp_minus(u)));
        }
}

template <class T>
LATENTDEM_INLINE void sums(const T *grad, const T *x, std::int64_t rows, std::int64_t lanes, const Affine &affine,
                           double *sum, double *moment) {
    const float *const mean = affine.mean, *const scale = affine.scale, *const shift = affine.shift;
    float totals[kTile], moments[kTile];
    for (std::int64_t l = 0; l < lanes; ++l)
        totals[l] = moments[l] = 0.0f;
    for (std::int64_t r = 0; r < rows; ++r, grad += lanes, x += lanes)
        for (std::int64_t l = 0; l < lanes; ++l) {
            const float centred = read(x[l]) - mean[l];
            const float d = through_silu(read(grad[l]), centred * scale[l] + shift[l]);
            totals[l] += d;
            moments[l] += d * centred;
        }
    for (std::int64_t l = 0; l < lanes; ++l) {
        sum[l] += static_cast<double>(totals[l]);
        moment[l] += static_cast<double>(moments[l]);
    }
}

template <class T>
LATENTDEM_INLINE void gradient(const T *grad, const T *x, T *__restrict grad_x, std::int64_t rows, std::int64_t lanes,
                               const Affine &affine, const float *constant, const float *slope) {
    const float *const mean = affine.mean, *const scale = affine.scale, *const shift = affine.shift;
    for (std::int64_t r = 0; r < rows; ++r, grad += lanes, x += lanes, grad_x += lanes)
        for (std::int64_t l = 0; l < lanes; ++l) {
            const float centred = read(x[l]) - mean[l];
            const float d = through_silu(read(grad[l]), centred * scale[l] + shift[l]);
            write(grad_x[l], scale[l] * d - (constant[l] + slope[l] * centred));
        }
}

} // namespace

// The specialisations are what is compiled for every instruction set: a template itself cannot be.
#define LATENTDEM_TILES(T)                                                                                             \
    template <>                                                                                                        \
    LATENTDEM_MULTIVERSION void tile_moments(const T *x, std::int64_t rows, std::int64_t lanes, std::int64_t before,   \
                                             double *mean, double *square) {                                           \
        moments(x, rows, lanes, before, mean, square);                                                                 \
    }                                                                                                                  \
    template <>                                                                                                        \
    LATENTDEM_MULTIVERSION void tile_silu(const T *x, T *y, std::int64_t rows, std::int64_t lanes,                     \
                                          const Affine &affine) {                                                      \
        silu(x, y, rows, lanes, affine);                                                                               \
    }                                                                                                                  \
    template <>                                                                                                        \
    LATENTDEM_MULTIVERSION void tile_sums(const T *grad, const T *x, std::int64_t rows, std::int64_t lanes,            \
                                          const Affine &affine, double *sum, double *moment) {                         \
        sums(grad, x, rows, lanes, affine, sum, moment);                                                               \
    }                                                                                                                  \
    template <>                                                                                                        \
    LATENTDEM_MULTIVERSION void tile_gradient(const T *grad, const T *x, T *grad_x, std::int64_t rows,                 \
                                              std::int64_t lanes, const Affine &affine, const float *constant,         \
                                              const float *slope) {                                                    \
        gradient(grad, x, grad_x, rows, lanes, affine, constant, slope);                                               \
    }
LATENTDEM_TILES(float)
LATENTDEM_TILES(BFloat16)

} // namespace latentdem
