// Correlations of the masked gradients of an image with themselves and with those of another one, at small lags
// (reference.gradient_lags): everything between the image and the lags in one call.
#pragma once

#include <cstdint>

namespace latentdem {

struct GradientLags {
    const float *x;          // batch x channels x height x width
    const float *spectrum;   // batch x channels x height x (width / 2 + 1), complex: of the other image
    const float *mask;       // masks x height x width
    const double *whitening; // batch
    float *lags;             // batch x (2 size - 1) x (2 size - 1)
    float *cross;            // batch x size x size
    std::int64_t batch, masks, channels, height, width, size;
    int threads;
};

void gradient_lags(const GradientLags &task);

} // namespace latentdem
