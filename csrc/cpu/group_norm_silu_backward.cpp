// With u = scale (x - mean) + shift, d = grad silu'(u) and averages over a group of N = width * spatial values,
//   grad_x = rstd (w d - average(w d) - xhat average(w d xhat)),  xhat = rstd (x - mean),
//   grad_weight = sum d xhat,  grad_bias = sum d.
// The sums of d and of d (x - mean) over the plane of a channel give all of these.
#include <numeric>

#include "group_norm_layout.hpp"

namespace latentdem {
namespace {

// grad_x = scale d - constant - slope (x - mean).
struct Correction {
    float constant, slope;
};

// From the sums of d (in grad_bias) and of d (x - mean) (in grad_weight) of the channels of one group of a sample;
// leaves the gradients there.
template <class T>
Correction correct(const GroupNormSiluBackward<T> &op, std::int64_t group) {
    const std::int64_t width = op.shape.channels / op.shape.groups;
    const double count = static_cast<double>(width * op.shape.spatial);
    const double rstd = static_cast<double>(op.rstd[group]);
    double sum = 0, moment = 0;
    for (std::int64_t plane = group * width; plane < (group + 1) * width; ++plane) {
        const double weight = static_cast<double>(op.weight[plane % op.shape.channels]);
        sum += weight * op.grad_bias[plane];
        moment += weight * op.grad_weight[plane];
        op.grad_weight[plane] *= rstd;
    }
    return {static_cast<float>(rstd * sum / count), static_cast<float>(rstd * rstd * rstd * moment / count)};
}

template <class T>
void backward_planes(const GroupNormSiluBackward<T> &op) {
    const std::int64_t spatial = op.shape.spatial, width = op.shape.channels / op.shape.groups;
    const auto affine_of = [&](std::int64_t group, std::int64_t plane) {
        const std::int64_t channel = plane % op.shape.channels;
        return PlaneAffine(op.mean[group], op.rstd[group] * op.weight[channel], op.bias[channel], spatial);
    };
    each_group(op.shape, [&](std::int64_t group) {
        for (std::int64_t plane = group * width; plane < (group + 1) * width; ++plane) {
            const PlaneAffine affine = affine_of(group, plane);
            double sums[kLanes] = {}, moments[kLanes] = {};
            for_plane(spatial, [&](std::int64_t offset, std::int64_t rows, std::int64_t lanes) {
                const std::int64_t at = plane * spatial + offset;
                tile_sums(op.grad + at, op.x + at, rows, lanes, affine, sums, moments);
            });
            op.grad_bias[plane] = std::accumulate(sums, sums + kLanes, 0.0);
            op.grad_weight[plane] = std::accumulate(moments, moments + kLanes, 0.0);
        }
        const Correction correction = correct(op, group);
        float constant[kLanes], slope[kLanes];
        std::fill_n(constant, kLanes, correction.constant);
        std::fill_n(slope, kLanes, correction.slope);
        for (std::int64_t plane = group * width; plane < (group + 1) * width; ++plane) {
            const PlaneAffine affine = affine_of(group, plane);
            for_plane(spatial, [&](std::int64_t offset, std::int64_t rows, std::int64_t lanes) {
                const std::int64_t at = plane * spatial + offset;
                tile_gradient(op.grad + at, op.x + at, op.grad_x + at, rows, lanes, affine, constant, slope);
            });
        }
    });
}

template <class T>
void backward_rows(const GroupNormSiluBackward<T> &op) {
    const std::int64_t channels = op.shape.channels, width = channels / op.shape.groups;
    const Chunks chunks(op.shape);
    const RowsAffine affine(op.shape, op.mean, op.rstd, op.weight, op.bias);
    std::vector<double> sums(static_cast<std::size_t>(chunks.total * channels)), moments(sums);
    chunks.each(op.shape.threads, [&](std::int64_t chunk) {
        for_rows(chunks.count(chunk), channels,
                 [&](std::int64_t offset, std::int64_t channel, std::int64_t rows, std::int64_t lanes) {
                     const std::int64_t at = chunks.offset(chunk) + offset, lane = chunk * channels + channel;
                     tile_sums(op.grad + at, op.x + at, rows, lanes, affine.at(chunks.sample(chunk), channel),
                               sums.data() + lane, moments.data() + lane);
                 });
    });
    std::fill_n(op.grad_bias, op.shape.batch * channels, 0.0);
    std::fill_n(op.grad_weight, op.shape.batch * channels, 0.0);
    for (std::int64_t chunk = 0; chunk < chunks.total; ++chunk)
        for (std::int64_t channel = 0; channel < channels; ++channel) {
            op.grad_bias[chunks.sample(chunk) * channels + channel] += sums[chunk * channels + channel];
            op.grad_weight[chunks.sample(chunk) * channels + channel] += moments[chunk * channels + channel];
        }
    std::vector<float> constant(static_cast<std::size_t>(op.shape.batch * channels)), slope(constant);
    for (std::int64_t group = 0; group < op.shape.batch * op.shape.groups; ++group) {
        const Correction correction = correct(op, group);
        std::fill_n(constant.data() + group * width, width, correction.constant);
        std::fill_n(slope.data() + group * width, width, correction.slope);
    }
    chunks.each(op.shape.threads, [&](std::int64_t chunk) {
        for_rows(chunks.count(chunk), channels,
                 [&](std::int64_t offset, std::int64_t channel, std::int64_t rows, std::int64_t lanes) {
                     const std::int64_t sample = chunks.sample(chunk), lane = sample * channels + channel;
                     const std::int64_t at = chunks.offset(chunk) + offset;
                     tile_gradient(op.grad + at, op.x + at, op.grad_x + at, rows, lanes, affine.at(sample, channel),
                                   constant.data() + lane, slope.data() + lane);
                 });
    });
}

} // namespace

template <class T>
void group_norm_silu_backward(const GroupNormSiluBackward<T> &op) {
    op.shape.channels_last ? backward_rows(op) : backward_planes(op);
}

template void group_norm_silu_backward(const GroupNormSiluBackward<float> &);
template void group_norm_silu_backward(const GroupNormSiluBackward<BFloat16> &);

} // namespace latentdem
