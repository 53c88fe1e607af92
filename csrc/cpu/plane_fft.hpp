// FFTs of real images of even width, 16 rows or columns at a time.
//
// A strip holds kLanes rows of an image, a Row for two columns: re the even one, im the odd one. The half spectrum of an
// image has `blocks` blocks of kLanes columns, a Row for each row frequency in the order of lane_fft, and `stride` of
// them a block. A spectrum is twice the transform of the image; a round trip multiplies by `round_trip`.
#pragma once

#include <cstdint>
#include <vector>

#include "lane_fft.hpp"

namespace latentdem {

// A real transform of sequences of even length, in lanes.
struct SequenceFft {
    explicit SequenceFft(std::int64_t length) : length(length), half(plan_of(length / 2)) {}

    std::int64_t length;
    const FftPlan &half;

    // `values`: length / 2 Rows of two points each, destroyed; `frequencies`: length / 2 + 1.
    void forward(Row *values, Row *frequencies) const;
    void inverse(const Row *frequencies, Row *values) const;
};

struct PlaneFft {
    PlaneFft(std::int64_t height, std::int64_t width);

    std::int64_t height, width;
    SequenceFft rows;
    const FftPlan &columns;
    std::int64_t pairs;   // Rows of a strip
    std::int64_t strips;  // of an image
    std::int64_t blocks;  // of kLanes columns of a spectrum
    std::int64_t stride;  // Rows of a block: the height, in whole strips
    float round_trip;

    std::int64_t spectrum_size() const { return blocks * stride; }

    // One strip into a spectrum whose columns are still to be transformed, and back. `strip` is destroyed.
    void strip_forward(Row *strip, std::int64_t index, Row *spectrum) const;
    void strip_inverse(const Row *spectrum, std::int64_t index, Row *strip) const;
    void columns_forward(Row *spectrum, std::int64_t block) const;
    void columns_inverse(Row *spectrum, std::int64_t block) const;

    // The rows of a strip from and to an image of `width` floats a row. Rows beyond the last one are zero.
    void load_strip(const float *image, std::int64_t index, Row *strip) const;
    void store_strip(const Row *strip, std::int64_t index, float *image) const;
};

} // namespace latentdem
