// Transposition of matrices: what turns a channels-last image into a contiguous one and back.
#pragma once

#include <cstdint>

namespace latentdem {

// `from`: batch x rows x columns, `to`: batch x columns x rows, elements of 2 or 4 bytes.
void transpose(const void *from, void *to, std::int64_t batch, std::int64_t rows, std::int64_t columns, int item_size,
               int threads);

} // namespace latentdem
