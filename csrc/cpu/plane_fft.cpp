#include "plane_fft.hpp"

#include <algorithm>

#include "columns.hpp"
#include "lane_tiles.hpp"
#include "multiversion.hpp"

namespace latentdem {
namespace {

// At least `count` Rows that no one else uses, kept by each thread for each of its two purposes.
template <int purpose>
Row *scratch(std::int64_t count) {
    thread_local std::vector<Row> rows;
    if (rows.size() < static_cast<std::size_t>(count))
        rows.resize(static_cast<std::size_t>(count));
    return rows.data();
}

LATENTDEM_MULTIVERSION void to_frequencies(const FftPlan &plan, const Row *values, Row *frequencies) {
    const int length = plan.length, *const place = plan.position.data();
    Row &first = frequencies[0], &last = frequencies[length];
    for (int lane = 0; lane < kLanes; ++lane) {
        const float re = values[0].re[lane], im = values[0].im[lane];
        first.re[lane] = 2 * (re + im);
        last.re[lane] = 2 * (re - im);
        first.im[lane] = last.im[lane] = 0;
    }
    for (int u = 1; 2 * u <= length; ++u)
        separate(values[place[u]], values[place[length - u]], plan.sine[u], -plan.cosine[u], frequencies[u],
                 frequencies[length - u]);
}

LATENTDEM_MULTIVERSION void from_frequencies(const FftPlan &plan, const Row *frequencies, Row *values) {
    const int length = plan.length, *const place = plan.position.data();
    for (int lane = 0; lane < kLanes; ++lane) {
        values[0].re[lane] = frequencies[0].re[lane] + frequencies[length].re[lane];
        values[0].im[lane] = frequencies[0].re[lane] - frequencies[length].re[lane];
    }
    for (int u = 1; 2 * u <= length; ++u)
        separate(frequencies[u], frequencies[length - u], plan.sine[u], plan.cosine[u], values[place[u]],
                 values[place[length - u]]);
}

LATENTDEM_MULTIVERSION void scatter_tiles(const Row *frequencies, std::int64_t blocks, std::int64_t stride, Row *to) {
    for (std::int64_t block = 0; block < blocks; ++block)
        transpose_rows(frequencies + block * kLanes, to + block * stride);
}

LATENTDEM_MULTIVERSION void gather_tiles(const Row *from, std::int64_t blocks, std::int64_t stride, Row *frequencies) {
    for (std::int64_t block = 0; block < blocks; ++block)
        transpose_rows(from + block * stride, frequencies + block * kLanes);
}

LATENTDEM_MULTIVERSION void load_tiles(const float *image, std::int64_t width, float *strip) {
    for (std::int64_t column = 0; column + kLanes <= width; column += kLanes)
        transpose_tile(image + column, width, strip + column * kLanes, kLanes);
}

LATENTDEM_MULTIVERSION void store_tiles(const float *strip, std::int64_t width, float *image) {
    for (std::int64_t column = 0; column + kLanes <= width; column += kLanes)
        transpose_tile(strip + column * kLanes, kLanes, image + column, width);
}

} // namespace

void SequenceFft::forward(Row *values, Row *frequencies) const {
    fft_forward(half, values);
    to_frequencies(half, values, frequencies);
}

void SequenceFft::inverse(const Row *frequencies, Row *values) const {
    from_frequencies(half, frequencies, values);
    fft_inverse(half, values);
}

PlaneFft::PlaneFft(std::int64_t height, std::int64_t width)
    : height(height), width(width), rows(width), columns(plan_of(height)), pairs(width / 2),
      strips((height + kLanes - 1) / kLanes), blocks(blocks_of(width / 2 + 1)), stride(strips * kLanes),
      round_trip(2.0f * static_cast<float>(height) * static_cast<float>(width)) {}

void PlaneFft::strip_forward(Row *strip, std::int64_t index, Row *spectrum) const {
    Row *const frequencies = scratch<0>(blocks * kLanes);
    rows.forward(strip, frequencies);
    std::fill(frequencies + pairs + 1, frequencies + blocks * kLanes, Row{});
    scatter_tiles(frequencies, blocks, stride, spectrum + index * kLanes);
}

void PlaneFft::strip_inverse(const Row *spectrum, std::int64_t index, Row *strip) const {
    Row *const frequencies = scratch<0>(blocks * kLanes);
    gather_tiles(spectrum + index * kLanes, blocks, stride, frequencies);
    rows.inverse(frequencies, strip);
}

Row *PlaneFft::scratch_strip() const { return scratch<1>(pairs); }

void PlaneFft::columns_forward(Row *spectrum, std::int64_t block) const {
    fft_forward(columns, spectrum + block * stride);
}

void PlaneFft::columns_inverse(Row *spectrum, std::int64_t block) const {
    fft_inverse(columns, spectrum + block * stride);
}

void PlaneFft::load_strip(const float *image, std::int64_t index, Row *strip) const {
    load_rows(image + index * kLanes * width, std::min<std::int64_t>(kLanes, height - index * kLanes), strip);
}

void PlaneFft::load_rows(const float *rows, std::int64_t count, Row *strip) const {
    float *const values = reinterpret_cast<float *>(strip);
    const std::int64_t whole = count == kLanes ? width / kLanes * kLanes : 0;
    if (whole)
        load_tiles(rows, width, values);
    for (std::int64_t column = whole; column < width; ++column)
        for (int lane = 0; lane < kLanes; ++lane)
            values[column * kLanes + lane] = lane < count ? rows[lane * width + column] : 0.0f;
}

void PlaneFft::store_strip(const Row *strip, std::int64_t index, float *image) const {
    const std::int64_t count = std::min<std::int64_t>(kLanes, height - index * kLanes);
    const float *const values = reinterpret_cast<const float *>(strip);
    image += index * kLanes * width;
    const std::int64_t whole = count == kLanes ? width / kLanes * kLanes : 0;
    if (whole)
        store_tiles(values, width, image);
    for (std::int64_t column = whole; column < width; ++column)
        for (std::int64_t lane = 0; lane < count; ++lane)
            image[lane * width + column] = values[column * kLanes + lane];
}

} // namespace latentdem
