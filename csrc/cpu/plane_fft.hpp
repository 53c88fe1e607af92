// FFTs of real images of even width, 16 rows or columns at a time.
//
// A strip holds kLanes rows of an image, a Row for two columns: re the even one, im the odd one. The half spectrum of
// an image has `blocks` blocks of kLanes columns, a Row for each row frequency in the order of lane_fft, and `stride`
// of them a block. A spectrum is twice the transform of the image; a round trip multiplies by `round_trip`.
#pragma once

#include <cstdint>
#include <vector>

#include "lane_fft.hpp"
#include "parallel.hpp"

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
    std::int64_t pairs;  // Rows of a strip
    std::int64_t strips; // of an image
    std::int64_t blocks; // of kLanes columns of a spectrum
    std::int64_t stride; // Rows of a block: the height, in whole strips
    float round_trip;

    std::int64_t spectrum_size() const { return blocks * stride; }

    // One strip into a spectrum whose columns are still to be transformed, and back. `strip` is destroyed.
    void strip_forward(Row *strip, std::int64_t index, Row *spectrum) const;
    void strip_inverse(const Row *spectrum, std::int64_t index, Row *strip) const;
    void columns_forward(Row *spectrum, std::int64_t block) const;
    void columns_inverse(Row *spectrum, std::int64_t block) const;

    // The rows of a strip from and to an image of `width` floats a row. Rows beyond the last one, or beyond the first
    // `count`, are zero.
    void load_strip(const float *image, std::int64_t index, Row *strip) const;
    void load_rows(const float *rows, std::int64_t count, Row *strip) const;
    void store_strip(const Row *strip, std::int64_t index, float *image) const;

    // The spectrum of an image whose strips are made by fill(index, strip), on `threads` threads.
    template <class Fill>
    void forward(Row *spectrum, int threads, const Fill &fill) const {
        for_each(strips, threads, [&](std::int64_t index) {
            Row *const strip = scratch_strip();
            fill(index, strip);
            strip_forward(strip, index, spectrum);
        });
        for_each(blocks, threads, [&](std::int64_t block) { columns_forward(spectrum, block); });
    }

    // take(index, strip) for the strips of the image of `spectrum`, which is destroyed.
    template <class Take>
    void inverse(Row *spectrum, int threads, const Take &take) const {
        for_each(blocks, threads, [&](std::int64_t block) { columns_inverse(spectrum, block); });
        for_each(strips, threads, [&](std::int64_t index) {
            Row *const strip = scratch_strip();
            strip_inverse(spectrum, index, strip);
            take(index, strip);
        });
    }

    // body(index) for every index of [0, count) on at most `threads` threads; nothing is allocated for one.
    template <class Body>
    static void for_each(std::int64_t count, int threads, const Body &body) {
        if (threads > 1)
            return parallel_for(count, 1, threads, [&](std::int64_t index, std::int64_t) { body(index); });
        for (std::int64_t index = 0; index < count; ++index)
            body(index);
    }

    // A strip that belongs to the thread.
    Row *scratch_strip() const;
};

} // namespace latentdem
