// How group_norm_silu walks through its arrays, and the per-channel numbers of a walk.
//
// Planes (batch x channels x spatial): a group of a sample is contiguous, one thread does all of it while it is in
// cache. Rows (batch x spatial x channels): every row holds all groups; threads take chunks of rows, whose partial
// sums are added in the order of the chunks. Neither order depends on the number of threads.
#pragma once

#include <algorithm>
#include <vector>

#include "group_norm_silu.hpp"
#include "parallel.hpp"

namespace latentdem {

constexpr std::int64_t kLanes = 64;    // a plane is handled as rows of this many values
constexpr std::int64_t kChunk = 65536; // items of a chunk of rows, and items worth a thread

// tile(offset, rows, lanes) for the tiles of `count` values of one channel.
template <class Tile>
void for_plane(std::int64_t count, const Tile &tile) {
    for (std::int64_t offset = 0; offset < count; offset += kTile) {
        const std::int64_t part = std::min(kTile, count - offset), rows = part / kLanes, rest = part % kLanes;
        if (rows > 0)
            tile(offset, rows, kLanes);
        if (rest > 0)
            tile(offset + rows * kLanes, std::int64_t{1}, rest);
    }
}

// tile(offset, first channel, rows, lanes) for the tiles of `rows` rows of `channels` values.
template <class Tile>
void for_rows(std::int64_t rows, std::int64_t channels, const Tile &tile) {
    const std::int64_t together = std::max<std::int64_t>(1, kTile / channels);
    for (std::int64_t row = 0; row < rows; row += together)
        for (std::int64_t channel = 0; channel < channels; channel += kTile)
            tile(row * channels + channel, channel, std::min(together, rows - row),
                 std::min(kTile, channels - channel));
}

// The rows of a batch, cut into chunks.
struct Chunks {
    std::int64_t channels, spatial, rows, per_sample, total;

    explicit Chunks(const GroupNormShape &shape)
        : channels(shape.channels), spatial(shape.spatial), rows(std::max<std::int64_t>(1, kChunk / channels)),
          per_sample((spatial + rows - 1) / rows), total(shape.batch * per_sample) {}

    std::int64_t sample(std::int64_t chunk) const { return chunk / per_sample; }
    std::int64_t first(std::int64_t chunk) const { return chunk % per_sample * rows; }
    std::int64_t count(std::int64_t chunk) const { return std::min(rows, spatial - first(chunk)); }
    std::int64_t offset(std::int64_t chunk) const { return (sample(chunk) * spatial + first(chunk)) * channels; }

    template <class Body>
    void each(int threads, const Body &body) const {
        parallel_for(total, 1, threads, [&body](std::int64_t begin, std::int64_t end) {
            for (; begin < end; ++begin)
                body(begin);
        });
    }
};

template <class Body>
void each_group(const GroupNormShape &shape, const Body &body) {
    const std::int64_t size = shape.channels / shape.groups * shape.spatial;
    const std::int64_t grain = std::max<std::int64_t>(1, kChunk / std::max<std::int64_t>(1, size));
    parallel_for(shape.batch * shape.groups, grain, shape.threads, [&body](std::int64_t begin, std::int64_t end) {
        for (; begin < end; ++begin)
            body(begin);
    });
}

// The numbers of one channel, repeated over the lanes of its plane.
struct PlaneAffine {
    float mean[kLanes], scale[kLanes], shift[kLanes];

    PlaneAffine(float m, float a, float b, std::int64_t spatial) {
        const std::int64_t lanes = std::min(kLanes, spatial);
        std::fill_n(mean, lanes, m);
        std::fill_n(scale, lanes, a);
        std::fill_n(shift, lanes, b);
    }
    operator Affine() const { return {mean, scale, shift}; }
};

// The numbers of every channel of every sample.
struct RowsAffine {
    std::int64_t channels;
    std::vector<float> mean, scale, shift;

    RowsAffine(const GroupNormShape &shape, const float *means, const float *rstd, const float *weight,
               const float *bias)
        : channels(shape.channels), mean(static_cast<std::size_t>(shape.batch * channels)), scale(mean), shift(mean) {
        const auto width = static_cast<std::size_t>(channels / shape.groups);
        for (std::size_t i = 0; i < mean.size(); ++i) {
            const std::size_t group = i / width, channel = i % static_cast<std::size_t>(channels);
            mean[i] = means[group];
            scale[i] = rstd[group] * weight[channel];
            shift[i] = bias[channel];
        }
    }
    Affine at(std::int64_t sample, std::int64_t channel) const {
        const std::int64_t i = sample * channels + channel;
        return {mean.data() + i, scale.data() + i, shift.data() + i};
    }
};

} // namespace latentdem
