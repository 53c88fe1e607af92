// Transposition of matrices: what turns a channels-last image into a contiguous one and back.

#include <algorithm>

#include "bindings.hpp"
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

// `from`: batch x rows x columns, `to`: batch x columns x rows; Item is any type of the size of the elements.
template <class Item>
void transpose(const Item *from, Item *to, std::int64_t batch, std::int64_t rows, std::int64_t columns, int threads) {
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

static void bind(pybind11::module_ &module) {
    namespace py = pybind11;
    module.def(
        "transpose",
        [](Address from, Address to, std::int64_t batch, std::int64_t rows, std::int64_t columns, int item_size,
           int threads) {
            const auto run = [&](auto item) {
                using Item = decltype(item);
                transpose(pointer<const Item>(from), pointer<Item>(to), batch, rows, columns, threads);
            };
            item_size == 2 ? run(std::uint16_t{}) : run(std::uint32_t{});
        },
        py::kw_only(), py::arg("from_"), py::arg("to"), py::arg("batch"), py::arg("rows"), py::arg("columns"),
        py::arg("item_size"), py::arg("threads"), py::call_guard<py::gil_scoped_release>());
}

static const Binding binding(bind);

} // namespace latentdem
