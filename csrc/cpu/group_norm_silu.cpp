#include "group_norm_silu.hpp"

#include <cmath>

#include "group_norm_layout.hpp"

namespace latentdem {
namespace {

// Mean and 1 / sqrt(variance + eps) of parts, each (count, mean, sum of squared deviations); visit(add) calls add
// for every part, and is called twice.
template <class Visit>
void join_moments(const Visit &visit, double eps, float *mean, float *rstd) {
    double count = 0, sum = 0, square = 0;
    visit([&](double n, double part_mean, double) {
        count += n;
        sum += n * part_mean;
    });
    const double whole = sum / count;
    visit([&](double n, double part_mean, double part_square) {
        square += part_square + n * (part_mean - whole) * (part_mean - whole);
    });
    *mean = static_cast<float>(whole);
    *rstd = static_cast<float>(1 / std::sqrt(square / count + eps));
}

template <class T>
void plane_statistics(const T *x, std::int64_t count, double eps, float *mean, float *rstd) {
    double means[kLanes] = {}, squares[kLanes] = {};
    double tail_means[kLanes] = {}, tail_squares[kLanes] = {};
    std::int64_t rows_done = 0, tail_count = 0;
    for_plane(count, [&](std::int64_t offset, std::int64_t rows, std::int64_t lanes) {
        if (lanes < kLanes) {
            tile_moments(x + offset, rows, lanes, 0, tail_means, tail_squares);
            tail_count = lanes;
        } else {
            tile_moments(x + offset, rows, lanes, rows_done, means, squares);
            rows_done += rows;
        }
    });
    const auto visit = [&](const auto &add) {
        for (std::int64_t l = 0; l < kLanes && rows_done > 0; ++l)
            add(static_cast<double>(rows_done), means[l], squares[l]);
        for (std::int64_t i = 0; i < tail_count; ++i)
            add(1.0, tail_means[i], 0.0);
    };
    join_moments(visit, eps, mean, rstd);
}

template <class T>
void forward_planes(const GroupNormSilu<T> &op) {
    const std::int64_t spatial = op.shape.spatial, width = op.shape.channels / op.shape.groups;
    each_group(op.shape, [&](std::int64_t group) {
        plane_statistics(op.x + group * width * spatial, width * spatial, op.eps, op.mean + group, op.rstd + group);
        for (std::int64_t plane = group * width; plane < (group + 1) * width; ++plane) {
            const std::int64_t channel = plane % op.shape.channels;
            const PlaneAffine affine(op.mean[group], op.rstd[group] * op.weight[channel], op.bias[channel], spatial);
            for_plane(spatial, [&](std::int64_t offset, std::int64_t rows, std::int64_t lanes) {
                const std::int64_t at = plane * spatial + offset;
                tile_silu(op.x + at, op.y + at, rows, lanes, affine);
            });
        }
    });
}

template <class T>
void rows_statistics(const GroupNormSilu<T> &op, const Chunks &chunks) {
    const std::int64_t channels = op.shape.channels, width = channels / op.shape.groups;
    std::vector<double> means(static_cast<std::size_t>(chunks.total * channels)), squares(means);
    chunks.each(op.shape.threads, [&](std::int64_t chunk) {
        double *const mean = means.data() + chunk * channels, *const square = squares.data() + chunk * channels;
        const T *const x = op.x + chunks.offset(chunk);
        std::int64_t done = 0;
        for_rows(chunks.count(chunk), channels,
                 [&](std::int64_t offset, std::int64_t channel, std::int64_t rows, std::int64_t lanes) {
                     tile_moments(x + offset, rows, lanes, done, mean + channel, square + channel);
                     done += channel + lanes == channels ? rows : 0;
                 });
    });
    for (std::int64_t group = 0; group < op.shape.batch * op.shape.groups; ++group) {
        const std::int64_t sample = group / op.shape.groups, channel = group % op.shape.groups * width;
        const auto visit = [&](const auto &add) {
            for (std::int64_t k = sample * chunks.per_sample; k < (sample + 1) * chunks.per_sample; ++k)
                for (std::int64_t c = channel; c < channel + width; ++c)
                    add(static_cast<double>(chunks.count(k)), means[static_cast<std::size_t>(k * channels + c)],
                        squares[static_cast<std::size_t>(k * channels + c)]);
        };
        join_moments(visit, op.eps, op.mean + group, op.rstd + group);
    }
}

template <class T>
void forward_rows(const GroupNormSilu<T> &op) {
    const Chunks chunks(op.shape);
    rows_statistics(op, chunks);
    const RowsAffine affine(op.shape, op.mean, op.rstd, op.weight, op.bias);
    chunks.each(op.shape.threads, [&](std::int64_t chunk) {
        for_rows(chunks.count(chunk), chunks.channels,
                 [&](std::int64_t offset, std::int64_t channel, std::int64_t rows, std::int64_t lanes) {
                     const std::int64_t at = chunks.offset(chunk) + offset;
                     tile_silu(op.x + at, op.y + at, rows, lanes, affine.at(chunks.sample(chunk), channel));
                 });
    });
}

} // namespace

template <class T>
void group_norm_silu(const GroupNormSilu<T> &op) {
    op.shape.channels_last ? forward_rows(op) : forward_planes(op);
}

template void group_norm_silu(const GroupNormSilu<float> &);
template void group_norm_silu(const GroupNormSilu<BFloat16> &);

} // namespace latentdem
