#include <vector>

#include "frustum_lanes.hpp"
#include "parallel.hpp"

namespace latentdem {
namespace {

using namespace frustum;

constexpr std::int64_t kWide = 8; // channels are padded to a multiple of this many

std::int64_t padded(std::int64_t channels) { return (channels + kWide - 1) / kWide * kWide; }

// The eight points around a place, and their shares.
struct Corners {
    std::int64_t at[8];
    float share[8], by_x[8], by_y[8], by_z[8];
    bool inside; // whether any of them is within the volume
};

LATENTDEM_INLINE Corners corners_of(const Axis &x, const Axis &y, const Axis &z, int lane) {
    Corners corners;
    for (int corner = 0; corner < 8; ++corner) {
        const bool right = corner & 1, bottom = corner & 2, back = corner & 4;
        const float sx = right ? x.share_high[lane] : x.share_low[lane];
        const float sy = bottom ? y.share_high[lane] : y.share_low[lane];
        const float sz = back ? z.share_high[lane] : z.share_low[lane];
        corners.at[corner] = (right ? x.high[lane] : x.low[lane]) + (bottom ? y.high[lane] : y.low[lane]) +
                             (back ? z.high[lane] : z.low[lane]);
        corners.share[corner] = sx * sy * sz;
        corners.by_x[corner] = (right ? x.slope_high[lane] : x.slope_low[lane]) * sy * sz;
        corners.by_y[corner] = (bottom ? y.slope_high[lane] : y.slope_low[lane]) * sx * sz;
        corners.by_z[corner] = (back ? z.slope_high[lane] : z.slope_low[lane]) * sx * sy;
    }
    const auto any = [lane](const Axis &axis) { return axis.share_low[lane] + axis.share_high[lane] > 0; };
    corners.inside = any(x) && any(y) && any(z);
    return corners;
}

// A sample's volume with the channels of a point side by side, padded with zeros, and what is computed of it.
struct Packed {
    std::vector<float> volume, grad_volume, lanes; // points x padded channels; kLanes x padded channels
};

LATENTDEM_MULTIVERSION void pack(const float *volume, std::int64_t channels, std::int64_t points, float *packed) {
    const std::int64_t wide = padded(channels);
    for (std::int64_t point = 0; point < points; ++point)
        for (std::int64_t c = 0; c < channels; ++c)
            packed[point * wide + c] = volume[c * points + point];
}

struct Line { // kLanes pixels of a row of a plane
    std::int64_t first;
    int count;
    Axis x, y, z;
};

LATENTDEM_INLINE void prepare(const FrustumShape &shape, const Place &place, std::int64_t wide, Line &line) {
    const auto stride = static_cast<std::int32_t>(wide), width = static_cast<std::int32_t>(shape.width);
    const auto height = static_cast<std::int32_t>(shape.height);
    interpolate(place.x, width, stride, line.x);
    interpolate(place.y, height, stride * width, line.y);
    interpolate(place.z, static_cast<std::int32_t>(shape.depth), stride * width * height, line.z);
}

LATENTDEM_MULTIVERSION void resample_line(const FrustumShape &shape, const Line &line, const Packed &packed,
                                          float *lanes, float *resampled) {
    const std::int64_t wide = padded(shape.channels), points = shape.depth * shape.height * shape.width;
    for (int lane = 0; lane < line.count; ++lane) {
        float *const __restrict sum = lanes + lane * wide;
        std::fill_n(sum, wide, 0.0f);
        const Corners corners = corners_of(line.x, line.y, line.z, lane);
        if (!corners.inside)
            continue;
        for (int corner = 0; corner < 8; ++corner) {
            const float *const value = packed.volume.data() + corners.at[corner];
            for (std::int64_t c = 0; c < wide; ++c)
                sum[c] += corners.share[corner] * value[c];
        }
    }
    for (std::int64_t c = 0; c < shape.channels; ++c)
        for (int lane = 0; lane < line.count; ++lane)
            resampled[c * points + line.first + lane] = lanes[lane * wide + c];
}

LATENTDEM_MULTIVERSION void resample_line_backward(const FrustumShape &shape, const Line &line, Packed &packed,
                                                   const float *grad, Lanes &by_x, Lanes &by_y, Lanes &by_z) {
    const std::int64_t wide = padded(shape.channels), points = shape.depth * shape.height * shape.width;
    for (std::int64_t c = 0; c < shape.channels; ++c)
        for (int lane = 0; lane < line.count; ++lane)
            packed.lanes[lane * wide + c] = grad[c * points + line.first + lane];
    by_x.fill(0), by_y.fill(0), by_z.fill(0);
    for (int lane = 0; lane < line.count; ++lane) {
        const Corners corners = corners_of(line.x, line.y, line.z, lane);
        if (!corners.inside)
            continue;
        const float *const by = packed.lanes.data() + lane * wide;
        for (int corner = 0; corner < 8; ++corner) {
            const float *const value = packed.volume.data() + corners.at[corner];
            float parts[kWide] = {};
            for (std::int64_t c = 0; c < wide; c += kWide)
                for (int i = 0; i < kWide; ++i)
                    parts[i] += by[c + i] * value[c + i];
            float product = 0;
            for (const float part : parts)
                product += part;
            by_x[lane] += product * corners.by_x[corner];
            by_y[lane] += product * corners.by_y[corner];
            by_z[lane] += product * corners.by_z[corner];
        }
        if (packed.grad_volume.empty())
            continue;
        for (int corner = 0; corner < 8; ++corner) {
            float *const __restrict sum = packed.grad_volume.data() + corners.at[corner];
            for (std::int64_t c = 0; c < wide; ++c)
                sum[c] += corners.share[corner] * by[c];
        }
    }
}

// Calls body(cameras, plane, row, columns, place, line) for all pixels of a sample, kLanes at a time.
template <class Body>
void for_each_line(const FrustumShape &shape, const FrustumCameras &all, std::int64_t sample, const Body &body) {
    const Cameras cameras{all.matrix + 12 * sample, all.distances[2 * sample], all.distances[2 * sample + 1]};
    Place place;
    Line line;
    for (std::int64_t k = 0; k < shape.depth; ++k)
        for (std::int64_t row = 0; row < shape.height; ++row)
            for (std::int64_t begin = 0; begin < shape.width; begin += kLanes) {
                const Lanes columns = columns_from(begin, shape.width);
                const float plane = centre(k, shape.depth), height = centre(row, shape.height);
                locate(cameras, plane, height, columns, place);
                prepare(shape, place, padded(shape.channels), line);
                line.first = (k * shape.height + row) * shape.width + begin;
                line.count = static_cast<int>(std::min<std::int64_t>(kLanes, shape.width - begin));
                body(cameras, plane, height, columns, place, line);
            }
}

} // namespace

void frustum_resample(const FrustumShape &shape, const FrustumCameras &cameras, const float *volume, float *resampled) {
    const std::int64_t points = shape.depth * shape.height * shape.width, wide = padded(shape.channels);
    Packed blank;
    blank.volume.assign(static_cast<std::size_t>(points * wide), 0);
    blank.lanes.assign(static_cast<std::size_t>(kLanes * wide), 0);
    parallel_for(shape.batch, 1, shape.threads, blank, [&](std::int64_t sample, Packed &packed) {
        const std::int64_t offset = sample * shape.channels * points;
        pack(volume + offset, shape.channels, points, packed.volume.data());
        for_each_line(shape, cameras, sample,
                      [&](const Cameras &, float, float, const Lanes &, const Place &, const Line &line) {
                          resample_line(shape, line, packed, packed.lanes.data(), resampled + offset);
                      });
    });
}

void frustum_resample_backward(const FrustumShape &shape, const FrustumCameras &cameras, const float *volume,
                               const float *grad, float *grad_volume, double *grad_cameras) {
    const std::int64_t points = shape.depth * shape.height * shape.width, wide = padded(shape.channels);
    Packed blank;
    blank.volume.assign(static_cast<std::size_t>(points * wide), 0);
    blank.lanes.assign(static_cast<std::size_t>(kLanes * wide), 0);
    if (grad_volume != nullptr)
        blank.grad_volume = blank.volume;
    parallel_for(shape.batch, 1, shape.threads, blank, [&](std::int64_t sample, Packed &packed) {
        const std::int64_t offset = sample * shape.channels * points;
        pack(volume + offset, shape.channels, points, packed.volume.data());
        std::fill(packed.grad_volume.begin(), packed.grad_volume.end(), 0.0f);
        CameraGradient gradient;
        for_each_line(shape, cameras, sample,
                      [&](const Cameras &own, float plane, float row, const Lanes &columns, const Place &place,
                          const Line &line) {
                          Lanes by_x, by_y, by_z;
                          resample_line_backward(shape, line, packed, grad + offset, by_x, by_y, by_z);
                          gradient.add(own, plane, row, columns, place, by_x, by_y, by_z);
                      });
        std::copy(gradient.sums.begin(), gradient.sums.end(), grad_cameras + 14 * sample);
        if (grad_volume != nullptr)
            for (std::int64_t c = 0; c < shape.channels; ++c)
                for (std::int64_t point = 0; point < points; ++point)
                    grad_volume[offset + c * points + point] = packed.grad_volume[point * wide + c];
    });
}

} // namespace latentdem
