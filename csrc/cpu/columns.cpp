#include "columns.hpp"

#include <algorithm>

#include "multiversion.hpp"

namespace latentdem {
namespace {

LATENTDEM_INLINE void load(const float *from, int lanes, Row &to) {
    LATENTDEM_INDEPENDENT
    for (int lane = 0; lane < lanes; ++lane) {
        to.re[lane] = from[2 * lane];
        to.im[lane] = from[2 * lane + 1];
    }
}

LATENTDEM_INLINE void store(const Row &from, int lanes, float *to) {
    LATENTDEM_INDEPENDENT
    for (int lane = 0; lane < lanes; ++lane) {
        to[2 * lane] = from.re[lane];
        to[2 * lane + 1] = from.im[lane];
    }
}

int lanes_of(std::int64_t columns, std::int64_t block) {
    return static_cast<int>(std::min<std::int64_t>(kLanes, columns - block * kLanes));
}

} // namespace

LATENTDEM_MULTIVERSION void load_columns(const float *from, std::int64_t columns, std::int64_t block,
                                         std::int64_t count, const int *place, Row *to) {
    const int lanes = lanes_of(columns, block);
    from += 2 * block * kLanes;
    for (std::int64_t row = 0; row < count; ++row, from += 2 * columns) {
        Row &target = to[place ? place[row] : row];
        if (lanes == kLanes) {
            load(from, kLanes, target);
        } else {
            target = Row{};
            load(from, lanes, target);
        }
    }
}

LATENTDEM_MULTIVERSION void store_columns(const Row *from, std::int64_t columns, std::int64_t block, std::int64_t count,
                                          float *to) {
    const int lanes = lanes_of(columns, block);
    to += 2 * block * kLanes;
    for (std::int64_t row = 0; row < count; ++row, to += 2 * columns)
        if (lanes == kLanes)
            store(from[row], kLanes, to);
        else
            store(from[row], lanes, to);
}

} // namespace latentdem
