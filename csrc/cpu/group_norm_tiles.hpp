// The loops of silu(group_norm(x)) and its gradients; the formula is in latentdem_ext/reference/network.py. Storage
// is float32 or bfloat16, arithmetic float32, sums over more than a few rows float64. A tile is `rows` rows of `lanes`
// values, contiguous, at most kTile of them; what belongs to a lane (a channel, or a column of a plane of one channel)
// has `lanes` entries.
#pragma once

#include <cstdint>

namespace latentdem {

struct BFloat16 {
    std::uint16_t bits;
};

constexpr std::int64_t kTile = 4096; // floats: a tile and its per-lane numbers stay in the first-level cache

// u = (x - mean) * scale + shift, what the sigmoid linear unit is applied to.
struct Affine {
    const float *mean, *scale, *shift;
};

// All of these exist for T = float and T = BFloat16.

// Adds `rows` rows to the mean and the sum of squared deviations of each lane, taken over `before` rows so far.
template <class T>
void tile_moments(const T *x, std::int64_t rows, std::int64_t lanes, std::int64_t before, double *mean, double *square);

// y = silu(u).
template <class T>
void tile_silu(const T *x, T *y, std::int64_t rows, std::int64_t lanes, const Affine &affine);

// With d = grad * silu'(u): sum += d and moment += d * (x - mean) of each lane.
template <class T>
void tile_sums(const T *grad, const T *x, std::int64_t rows, std::int64_t lanes, const Affine &affine, double *sum,
               double *moment);

// grad_x = scale * d - constant - slope * (x - mean).
template <class T>
void tile_gradient(const T *grad, const T *x, T *grad_x, std::int64_t rows, std::int64_t lanes, const Affine &affine,
                   const float *constant, const float *slope);

} // namespace latentdem
