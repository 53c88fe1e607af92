// A small square of an image, such as a kernel, around a place near the first pixel; it wraps around.
#pragma once

#include <cstdint>

#include "plane_fft.hpp"

namespace latentdem {

struct KernelWindow {
    const PlaneFft &plane;
    std::int64_t size;   // pixels a side
    std::int64_t origin; // pixel of the square that lies on the first one of the image; less than its sides

    // The spectrum of an image (plane_fft.hpp) that is zero outside of the square.
    void forward(const float *values, int threads, Row *spectrum) const;

    // The square, times `scale`, of the image of `spectrum`, which is destroyed.
    void inverse(Row *spectrum, float scale, int threads, float *values) const;

  private:
    bool in_strip(std::int64_t strip) const;

    template <class Visit>
    void visit(std::int64_t strip, const Visit &each) const;
};

} // namespace latentdem
