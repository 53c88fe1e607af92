// Where pixels of one camera's frustum lie in that of another, and the interpolation there, for several pixels of a row
// at once.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "frustum.hpp"
#include "multiversion.hpp"

namespace latentdem::frustum {

constexpr int kLanes = 16;
using Lanes = std::array<float, kLanes>;
using Indices = std::array<std::int32_t, kLanes>;

// The cameras of one sample.
struct Cameras {
    const float *matrix; // 3 x 4
    float target, known; // distances
};

// Positions in the frustum of the known camera, in [-1, 1] within it, and what their gradient needs.
struct Place {
    Lanes x, y, z, inverse, ahead; // 1 / forward; 1 where forward is not clamped, else 0
};

inline float centre(std::int64_t index, std::int64_t count) {
    return (2 * static_cast<float>(index) + 1) / static_cast<float>(count) - 1;
}

// The columns of kLanes pixels from `begin` on; the last one again beyond the end.
inline Lanes columns_from(std::int64_t begin, std::int64_t width) {
    Lanes columns;
    LATENTDEM_INDEPENDENT
    for (int lane = 0; lane < kLanes; ++lane)
        columns[lane] = centre(std::min(begin + lane, width - 1), width);
    return columns;
}

LATENTDEM_INLINE void locate(const Cameras &cameras, float plane, float row, const Lanes &columns, Place &place) {
    const float *const m = cameras.matrix, distance = cameras.target + plane;
    const float slope[3] = {distance * m[0], distance * m[4], distance * m[8]};
    float base[3];
    for (int axis = 0; axis < 3; ++axis)
        base[axis] = distance * (m[4 * axis + 1] * row + m[4 * axis + 2]) + m[4 * axis + 3];
    LATENTDEM_INDEPENDENT
    for (int lane = 0; lane < kLanes; ++lane) {
        const float forward = base[2] + slope[2] * columns[lane], used = std::max(forward, kNearest);
        const float inverse = 1 / used;
        place.x[lane] = (base[0] + slope[0] * columns[lane]) * inverse;
        place.y[lane] = (base[1] + slope[1] * columns[lane]) * inverse;
        place.z[lane] = used - cameras.known;
        place.inverse[lane] = inverse;
        place.ahead[lane] = forward >= kNearest ? 1.0f : 0.0f;
    }
}

// Linear interpolation along one axis: the two points, their shares, and the derivatives of these by the position.
// Points beyond the ends have no share.
struct Axis {
    Indices low, high;
    Lanes share_low, share_high, slope_low, slope_high;
};

LATENTDEM_INLINE void interpolate(const Lanes &position, std::int32_t count, std::int32_t stride, Axis &axis) {
    const float end = static_cast<float>(count), half = 0.5f * end;
    LATENTDEM_INDEPENDENT
    for (int lane = 0; lane < kLanes; ++lane) {
        // In this order NaN becomes -2, where neither point is within.
        const float index = std::min(std::max(-2.0f, half * (position[lane] + 1) - 0.5f), end);
        const float whole = std::floor(index), part = index - whole;
        const std::int32_t low = static_cast<std::int32_t>(whole), high = low + 1;
        const float has_low = low >= 0 && low < count ? 1.0f : 0.0f;
        const float has_high = high >= 0 && high < count ? 1.0f : 0.0f;
        axis.low[lane] = stride * std::min(std::max(low, 0), count - 1);
        axis.high[lane] = stride * std::min(std::max(high, 0), count - 1);
        axis.share_low[lane] = has_low * (1 - part);
        axis.share_high[lane] = has_high * part;
        axis.slope_low[lane] = -half * has_low;
        axis.slope_high[lane] = half * has_high;
    }
}

// Gradients of the cameras, summed over the pixels of a sample: by the matrix and by both distances.
struct CameraGradient {
    std::array<double, 14> sums{};

    // Adds those of one row of a plane, given the gradients by positions.
    LATENTDEM_INLINE void add(const Cameras &cameras, float plane, float row, const Lanes &columns, const Place &place,
                              const Lanes &by_x, const Lanes &by_y, const Lanes &by_z) {
        float total[3] = {}, weighted[3] = {}, along = 0;
        LATENTDEM_INDEPENDENT
        for (int lane = 0; lane < kLanes; ++lane) {
            const float sideways = by_x[lane] * place.x[lane] + by_y[lane] * place.y[lane];
            const float by[3] = {by_x[lane] * place.inverse[lane], by_y[lane] * place.inverse[lane],
                                 place.ahead[lane] * (by_z[lane] - sideways * place.inverse[lane])};
            for (int axis = 0; axis < 3; ++axis) {
                total[axis] += by[axis];
                weighted[axis] += by[axis] * columns[lane];
            }
            along += by_z[lane];
        }
        const double distance = cameras.target + plane;
        for (int axis = 0; axis < 3; ++axis) {
            const float *const m = cameras.matrix + 4 * axis;
            sums[4 * axis] += distance * weighted[axis];
            sums[4 * axis + 1] += distance * row * total[axis];
            sums[4 * axis + 2] += distance * total[axis];
            sums[4 * axis + 3] += total[axis];
            sums[12] += m[0] * weighted[axis] + (m[1] * row + m[2]) * total[axis];
        }
        sums[13] -= along;
    }
};

} // namespace latentdem::frustum
