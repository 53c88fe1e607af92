#include "gaps.hpp"

#include <algorithm>

namespace latentdem {

Gaps::Gaps(const PlaneFft &plane, const float *mask, const std::int64_t *band_rows, std::int64_t row_count,
           const std::int64_t *band_columns, std::int64_t column_count)
    : number(static_cast<std::size_t>(plane.height * plane.width), -1) {
    std::vector<char> row(static_cast<std::size_t>(plane.height)), column(static_cast<std::size_t>(plane.width));
    for (std::int64_t i = 0; i < row_count; ++i)
        row[band_rows[i]] = 1;
    for (std::int64_t i = 0; i < column_count; ++i)
        column[band_columns[i]] = 1;
    for (std::int64_t strip = 0; strip < plane.strips; ++strip) {
        const std::int64_t first = static_cast<std::int64_t>(runs.size());
        begin.push_back(first);
        for (std::int64_t x = 0; x < plane.width; ++x)
            for (std::int64_t lane = 0; lane < kLanes; ++lane) {
                const std::int64_t y = strip * kLanes + lane, place = x * kLanes + lane;
                if (y >= plane.height || mask[y * plane.width + x] > 0)
                    continue;
                if (static_cast<std::int64_t>(runs.size()) > first && runs.back().place + runs.back().count == place)
                    ++runs.back().count;
                else
                    runs.push_back({static_cast<std::int32_t>(place), static_cast<std::int32_t>(count), 1});
                number[y * plane.width + x] = static_cast<std::int32_t>(count++);
                hole.push_back(row[y] || column[x] ? 0.0f : 1.0f);
                holes = holes || hole.back() > 0;
            }
    }
    begin.push_back(static_cast<std::int64_t>(runs.size()));
    padded = count / kLanes * kLanes + kLanes;
    hole.resize(static_cast<std::size_t>(padded), 0.0f);
}

void Gaps::load(const float *vector, std::int64_t strip, Row *values) const {
    for (std::int64_t r = begin[strip]; r < begin[strip + 1]; ++r)
        std::copy_n(vector + runs[r].first, runs[r].count, reinterpret_cast<float *>(values) + runs[r].place);
}

void Gaps::load_alone(const float *vector, std::int64_t strip, Row *values, std::int64_t pairs) const {
    std::fill_n(values, pairs, Row{});
    load(vector, strip, values);
}

void Gaps::store(const Row *values, std::int64_t strip, float *vector) const {
    for (std::int64_t r = begin[strip]; r < begin[strip + 1]; ++r)
        std::copy_n(reinterpret_cast<const float *>(values) + runs[r].place, runs[r].count, vector + runs[r].first);
}

} // namespace latentdem
