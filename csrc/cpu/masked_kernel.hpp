// (X^T M X + a) v = b (reference.masked_kernel_solve): all conjugate gradients of a sample in one call. X is the
// convolution of a K x K kernel with the images of the sample, M the mask.
#pragma once

#include <cstdint>

namespace latentdem {

struct MaskedKernel {
    const float *x;             // batch x images x height x width
    const float *mask;          // masks x height x width
    const double *weight;       // batch, the a
    const float *right;         // batch x size x size, the b
    const float *factor;        // batch x size^2 x size^2, the lower factor of the preconditioner; null for a filter
    float *solution, *residual; // batch x size x size
    std::int64_t batch, masks, images, height, width, size;
    double allowed; // of the squared preconditioned residual
    std::int64_t iterations;
    int threads;
};

void masked_kernel_solve(const MaskedKernel &task);

} // namespace latentdem
