// argmin_k k^T A k / 2 - b^T k + a ||k||^2 / 2, k >= 0 or not (reference.kernel_from_lags): all conjugate gradients of
// a sample in one call. A is the matrix whose entries depend on the lag between two pixels only.
#pragma once

#include <cstdint>

namespace latentdem {

struct KernelFromLags {
    const float *lags;    // batch x (2 size - 1) x (2 size - 1), the first row of A and more, lag zero in the middle
    const float *cross;   // batch x size x size, the b
    const double *weight; // batch, the a
    const float *start;   // batch x size x size
    float *kernel;        // batch x size x size
    std::int64_t batch, size, side; // side of the grid: even, at least 2 size - 1
    bool nonnegative;
    double tolerance;
    std::int64_t iterations;
    int threads;
};

void kernel_from_lags(const KernelFromLags &task);

} // namespace latentdem
