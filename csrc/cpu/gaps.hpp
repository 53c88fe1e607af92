// The pixels of an image that were not measured. Their values are kept as vectors of their own, channel after channel;
// images appear as strips (plane_fft.hpp) on the way into and out of a transform only.
#pragma once

#include <cstdint>
#include <vector>

#include "plane_fft.hpp"

namespace latentdem {

struct Gaps {
    // A piece of a strip that belongs to the gaps.
    struct Run {
        std::int32_t place, first, count; // place in the strip, first value in the vector; floats
    };

    // `mask`: height x width, positive where a pixel was measured.
    Gaps(const PlaneFft &plane, const float *mask, const std::int64_t *band_rows, std::int64_t row_count,
         const std::int64_t *band_columns, std::int64_t column_count);

    // The values of a vector to their places in a strip, and back; `load_alone` sets the others to zero.
    void load(const float *vector, std::int64_t strip, Row *values) const;
    void load_alone(const float *vector, std::int64_t strip, Row *values, std::int64_t pairs) const;
    void store(const Row *values, std::int64_t strip, float *vector) const;

    std::vector<Run> runs;
    std::vector<std::int64_t> begin;  // strip: its first run
    std::vector<std::int32_t> number; // pixel: its value in the vector, -1 where it was measured
    std::int64_t count = 0, padded;   // values; with room for at least one more, in whole rows of lanes
    std::vector<float> hole;          // value: 1 beyond the bands, else 0
    bool holes = false;
};

} // namespace latentdem
