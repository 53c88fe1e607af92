// argmin_x ||mask (y - k * x)||^2 + rho ||x - x0||^2 (reference.masked_proximal): all conjugate gradients of a sample
// in one call.
#pragma once

#include <cstdint>

namespace latentdem {

struct MaskedProximal {
    const float *x0, *y, *fill; // batch x channels x height x width; fill null for that of k * x0
    const float *mask;          // masks x height x width, 1 where y was measured
    const float *otf;           // batch x height x (width / 2 + 1), complex
    const double *rho;          // batch
    const std::int64_t *band_rows, *band_columns;
    float *x, *filled; // batch x channels x height x width
    std::int64_t batch, masks, channels, height, width;
    std::int64_t row_count, column_count; // lines of the bands
    double tolerance, caution, caution_with_holes, rounding, least;
    std::int64_t iterations;
    int threads;
};

void masked_proximal(const MaskedProximal &task);

} // namespace latentdem
