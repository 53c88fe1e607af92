#include "kernel_window.hpp"

#include <algorithm>

namespace latentdem {

// Whether a row of the square is in this strip.
bool KernelWindow::in_strip(std::int64_t strip) const {
    const std::int64_t first = strip * kLanes;
    return first < size - origin || first + kLanes > plane.height - origin;
}

// each(place in the square, place in the strip) for all of the square that lies in a strip
template <class Visit>
void KernelWindow::visit(std::int64_t strip, const Visit &each) const {
    for (std::int64_t i = 0; i < size; ++i) {
        const std::int64_t row = i - origin + (i < origin ? plane.height : 0);
        if (row / kLanes != strip)
            continue;
        const std::int64_t from = i * size, to = row % kLanes;
        for (std::int64_t j = 0; j < origin; ++j)
            each(from + j, (j - origin + plane.width) * kLanes + to);
        for (std::int64_t j = origin; j < size; ++j)
            each(from + j, (j - origin) * kLanes + to);
    }
}

void KernelWindow::forward(const float *values, int threads, Row *spectrum) const {
    PlaneFft::for_each(plane.strips, threads, [&](std::int64_t index) {
        if (!in_strip(index)) {
            for (std::int64_t block = 0; block < plane.blocks; ++block)
                std::fill_n(spectrum + block * plane.stride + index * kLanes, kLanes, Row{});
            return;
        }
        Row *const strip = plane.scratch_strip();
        std::fill_n(strip, plane.pairs, Row{});
        visit(index, [&](std::int64_t from, std::int64_t to) { reinterpret_cast<float *>(strip)[to] = values[from]; });
        plane.strip_forward(strip, index, spectrum);
    });
    PlaneFft::for_each(plane.blocks, threads, [&](std::int64_t block) { plane.columns_forward(spectrum, block); });
}

void KernelWindow::inverse(Row *spectrum, float scale, int threads, float *values) const {
    PlaneFft::for_each(plane.blocks, threads, [&](std::int64_t block) { plane.columns_inverse(spectrum, block); });
    PlaneFft::for_each(plane.strips, threads, [&](std::int64_t index) {
        if (!in_strip(index))
            return;
        Row *const strip = plane.scratch_strip();
        plane.strip_inverse(spectrum, index, strip);
        visit(index, [&](std::int64_t to, std::int64_t from) {
            values[to] = scale * reinterpret_cast<const float *>(strip)[from];
        });
    });
}

} // namespace latentdem
