#include <vector>

#include "frustum_lanes.hpp"
#include "parallel.hpp"

namespace latentdem {
namespace {

using namespace frustum;

// The values of an opacity at places, and their derivatives by the positions.
struct Sample {
    Axis x, y, z;
    Lanes value, by_x, by_y, by_z;
};

LATENTDEM_INLINE void look_up(const FrustumShape &shape, const float *opacity, const Place &place, Sample &sample) {
    const auto depth = static_cast<std::int32_t>(shape.depth), height = static_cast<std::int32_t>(shape.height);
    const auto width = static_cast<std::int32_t>(shape.width);
    interpolate(place.x, width, 1, sample.x);
    interpolate(place.y, height, width, sample.y);
    interpolate(place.z, depth, height * width, sample.z);
    const Axis &x = sample.x, &y = sample.y, &z = sample.z;
    LATENTDEM_INDEPENDENT
    for (int lane = 0; lane < kLanes; ++lane) {
        const std::int32_t near_top = z.low[lane] + y.low[lane], near_bottom = z.low[lane] + y.high[lane];
        const std::int32_t far_top = z.high[lane] + y.low[lane], far_bottom = z.high[lane] + y.high[lane];
        const std::int32_t left = x.low[lane], right = x.high[lane];
        const auto across = [&](std::int32_t line, float low, float high) {
            return low * opacity[line + left] + high * opacity[line + right];
        };
        const float low = x.share_low[lane], high = x.share_high[lane];
        const float d_low = x.slope_low[lane], d_high = x.slope_high[lane];
        const float v00 = across(near_top, low, high), v01 = across(near_bottom, low, high);
        const float v10 = across(far_top, low, high), v11 = across(far_bottom, low, high);
        const float d00 = across(near_top, d_low, d_high), d01 = across(near_bottom, d_low, d_high);
        const float d10 = across(far_top, d_low, d_high), d11 = across(far_bottom, d_low, d_high);
        const float top = y.share_low[lane], bottom = y.share_high[lane];
        const float front = z.share_low[lane], back = z.share_high[lane];
        const float nearer = top * v00 + bottom * v01, farther = top * v10 + bottom * v11;
        sample.value[lane] = front * nearer + back * farther;
        sample.by_x[lane] = front * (top * d00 + bottom * d01) + back * (top * d10 + bottom * d11);
        sample.by_y[lane] = front * (y.slope_low[lane] * v00 + y.slope_high[lane] * v01) +
                            back * (y.slope_low[lane] * v10 + y.slope_high[lane] * v11);
        sample.by_z[lane] = z.slope_low[lane] * nearer + z.slope_high[lane] * farther;
    }
}

Cameras cameras_of(const FrustumCameras &all, std::int64_t sample) {
    return {all.matrix + 12 * sample, all.distances[2 * sample], all.distances[2 * sample + 1]};
}

LATENTDEM_MULTIVERSION void hit_row(const FrustumShape &shape, const Cameras &cameras, const float *opacity, float row,
                                    float *hit) {
    const std::int64_t pixels = shape.height * shape.width;
    for (std::int64_t begin = 0; begin < shape.width; begin += kLanes) {
        const Lanes columns = columns_from(begin, shape.width);
        Lanes passed, sums[4] = {};
        passed.fill(1);
        Place place;
        Sample sample;
        for (std::int64_t k = 0; k < shape.depth; ++k) {
            locate(cameras, centre(k, shape.depth), row, columns, place);
            look_up(shape, opacity, place, sample);
            LATENTDEM_INDEPENDENT
            for (int lane = 0; lane < kLanes; ++lane) {
                const float share = sample.value[lane] * passed[lane];
                sums[0][lane] += share;
                sums[1][lane] += share * place.x[lane];
                sums[2][lane] += share * place.y[lane];
                sums[3][lane] += share * place.z[lane];
                passed[lane] -= share;
            }
        }
        const int count = static_cast<int>(std::min<std::int64_t>(kLanes, shape.width - begin));
        for (int channel = 0; channel < 4; ++channel)
            std::copy_n(sums[channel].data(), count, hit + channel * pixels + begin);
    }
}

// What the way back along the rays needs of every plane.
struct Plane {
    Place place;
    Sample sample;
    Lanes passed;
};

LATENTDEM_INLINE void spread(const Sample &sample, const Lanes &by_value, int count, float *grad_opacity) {
    for (int lane = 0; lane < count; ++lane) {
        const Axis &x = sample.x, &y = sample.y, &z = sample.z;
        for (const auto &[plane, front] :
             {std::pair{z.low[lane], z.share_low[lane]}, {z.high[lane], z.share_high[lane]}})
            for (const auto &[line, top] :
                 {std::pair{y.low[lane], y.share_low[lane]}, {y.high[lane], y.share_high[lane]}}) {
                const float share = front * top * by_value[lane];
                grad_opacity[plane + line + x.low[lane]] += share * x.share_low[lane];
                grad_opacity[plane + line + x.high[lane]] += share * x.share_high[lane];
            }
    }
}

LATENTDEM_MULTIVERSION void hit_row_backward(const FrustumShape &shape, const Cameras &cameras, const float *opacity,
                                             float row, const float *grad, float *grad_opacity,
                                             std::vector<Plane> &planes, CameraGradient &gradient) {
    const std::int64_t pixels = shape.height * shape.width;
    for (std::int64_t begin = 0; begin < shape.width; begin += kLanes) {
        const Lanes columns = columns_from(begin, shape.width);
        const int count = static_cast<int>(std::min<std::int64_t>(kLanes, shape.width - begin));
        Lanes by[4] = {}, passed, behind = {};
        for (int channel = 0; channel < 4; ++channel)
            std::copy_n(grad + channel * pixels + begin, count, by[channel].data());
        passed.fill(1);
        for (std::int64_t k = 0; k < shape.depth; ++k) {
            Plane &plane = planes[k];
            locate(cameras, centre(k, shape.depth), row, columns, plane.place);
            look_up(shape, opacity, plane.place, plane.sample);
            plane.passed = passed;
            LATENTDEM_INDEPENDENT
            for (int lane = 0; lane < kLanes; ++lane)
                passed[lane] -= plane.sample.value[lane] * passed[lane];
        }
        for (std::int64_t k = shape.depth - 1; k >= 0; --k) {
            const Plane &plane = planes[k];
            const Place &place = plane.place;
            const Sample &sample = plane.sample;
            Lanes by_value, by_x, by_y, by_z;
            LATENTDEM_INDEPENDENT
            for (int lane = 0; lane < kLanes; ++lane) {
                const float here = by[0][lane] + by[1][lane] * place.x[lane] + by[2][lane] * place.y[lane] +
                                   by[3][lane] * place.z[lane];
                const float value = sample.value[lane], share = value * plane.passed[lane];
                const float change = plane.passed[lane] * (here - behind[lane]);
                behind[lane] += value * (here - behind[lane]);
                by_value[lane] = change;
                by_x[lane] = share * by[1][lane] + change * sample.by_x[lane];
                by_y[lane] = share * by[2][lane] + change * sample.by_y[lane];
                by_z[lane] = share * by[3][lane] + change * sample.by_z[lane];
            }
            gradient.add(cameras, centre(k, shape.depth), row, columns, place, by_x, by_y, by_z);
            if (grad_opacity != nullptr)
                spread(sample, by_value, count, grad_opacity);
        }
    }
}

} // namespace

void frustum_hits(const FrustumShape &shape, const FrustumCameras &cameras, const float *opacity, float *hit) {
    const std::int64_t pixels = shape.height * shape.width, points = shape.depth * pixels;
    parallel_for(shape.batch * shape.height, 4, shape.threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t line = begin; line < end; ++line) {
            const std::int64_t sample = line / shape.height, row = line % shape.height;
            hit_row(shape, cameras_of(cameras, sample), opacity + sample * points, centre(row, shape.height),
                    hit + 4 * sample * pixels + row * shape.width);
        }
    });
}

void frustum_hits_backward(const FrustumShape &shape, const FrustumCameras &cameras, const float *opacity,
                           const float *grad, float *grad_opacity, double *grad_cameras) {
    const std::int64_t pixels = shape.height * shape.width, points = shape.depth * pixels;
    const std::vector<Plane> blank(static_cast<std::size_t>(shape.depth));
    parallel_for(shape.batch, 1, shape.threads, blank, [&](std::int64_t sample, std::vector<Plane> &planes) {
        CameraGradient gradient;
        float *const own = grad_opacity == nullptr ? nullptr : grad_opacity + sample * points;
        if (own != nullptr)
            std::fill_n(own, points, 0.0f);
        for (std::int64_t row = 0; row < shape.height; ++row)
            hit_row_backward(shape, cameras_of(cameras, sample), opacity + sample * points, centre(row, shape.height),
                             grad + 4 * sample * pixels + row * shape.width, own, planes, gradient);
        std::copy(gradient.sums.begin(), gradient.sums.end(), grad_cameras + 14 * sample);
    });
}

} // namespace latentdem
