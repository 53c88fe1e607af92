// argmin_x ||y - k * x||^2 + penalty ||D x||_0 by half-quadratic splitting (reference.l0_deconvolution): all weights of
// a sample in one call.
#pragma once

#include <cstdint>

namespace latentdem {

struct L0Deconvolution {
    const float *y;                                        // batch x channels x height x width
    const float *otf;                                      // batch x height x (width / 2 + 1), complex
    const double *penalty, *weight, *growth, *last_weight; // batch
    float *x;                                              // batch x channels x height x width
    std::int64_t batch, channels, height, width;
    int threads;
};

void l0_deconvolution(const L0Deconvolution &task);

} // namespace latentdem
