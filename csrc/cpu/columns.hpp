// Half spectra of images by blocks of kLanes columns. The rows of an image are transformed elsewhere (real FFTs of
// contiguous rows); all that follows is done block by block, from the transform of its columns to the inverse one.
#pragma once

#include <cstdint>

#include "lane_fft.hpp"

namespace latentdem {

inline std::int64_t blocks_of(std::int64_t columns) { return (columns + kLanes - 1) / kLanes; }

// Complex numbers, `columns` a row, interleaved: rows 0..count-1 of one block to to[place[row]], or to to[row] where
// `place` is null. Lanes beyond the last column are set to zero.
void load_columns(const float *from, std::int64_t columns, std::int64_t block, std::int64_t count, const int *place,
                  Row *to);

// The inverse of load_columns, in order; nothing is written beyond the last column.
void store_columns(const Row *from, std::int64_t columns, std::int64_t block, std::int64_t count, float *to);

} // namespace latentdem
