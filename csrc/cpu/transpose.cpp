#include "transpose.hpp"

#include <algorithm>

#include "parallel.hpp"

namespace latentdem {
namespace {

constexpr std::int64_t kSide = 64;       // of a tile, which is turned in the first-level cache
constexpr std::int64_t kGrain = 1 << 16; // items worth a thread

template <class Item>
void turn(const Item *from, Item *to, std::int64_t rows, std::int64_t columns, std::int64_t height,
          std::int64_t width) {
    Item tile[kSide * kSide];
    for (std::int64_t r = 0; r < height; ++r)
        for (std::int64_t c = 0; c < width; ++c)
            tile[c * kSide + r] = from[r * columns + c];
    for (std::int64_t c = 0; c < width; ++c)
        std::copy_n(tile + c * kSide, height, to + c * rows);
}

// Item is any type of the size of the elements.
template <class Item>
void transpose_items(const void *from_items, void *to_items, std::int64_t batch, std::int64_t rows,
                     std::int64_t columns, int threads) {
    const Item *const from = static_cast<const Item *>(from_items);
    Item *const to = static_cast<Item *>(to_items);
    const std::int64_t bands = (rows + kSide - 1) / kSide;
    const std::int64_t grain = std::max<std::int64_t>(1, kGrain / (kSide * std::max<std::int64_t>(1, columns)));
    parallel_for(batch * bands, grain, threads, [=](std::int64_t begin, std::int64_t end) {
        for (; begin < end; ++begin) {
            const std::int64_t sample = begin / bands * rows * columns, row = begin % bands * kSide;
            for (std::int64_t column = 0; column < columns; column += kSide)
                turn(from + sample + row * columns + column, to + sample + column * rows + row, rows, columns,
                     std::min(kSide, rows - row), std::min(kSide, columns - column));
        }
    });
}

} // namespace

void transpose(const void *from, void *to, std::int64_t batch, std::int64_t rows, std::int64_t columns, int item_size,
               int threads) {
    const auto run = item_size == 2 ? transpose_items<std::uint16_t> : transpose_items<std::uint32_t>;
    run(from, to, batch, rows, columns, threads);
}

} // namespace latentdem
