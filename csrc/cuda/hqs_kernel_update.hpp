// Updates of a blur kernel in one launch, for padded grids that fit in shared memory; the formula is in
// latentdem_ext/reference/fourier.py. All arrays are contiguous.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace latentdem::cuda {

struct HqsKernelUpdate {
    const float *kernel;    // batch x size x size
    const float *data_term; // batch x size x size
    const float *filter;    // batch x side x (side / 2 + 1)
    float *updated;         // batch x size x size, may not overlap the inputs
    std::int64_t batch;
    int size, side; // 2 size <= side, and side is 32, 64 or 128
    bool project;   // clip to non-negative values and divide by the sum
    int iterations; // updates, at least one
};

cudaError_t launch(const HqsKernelUpdate &update, cudaStream_t stream);

} // namespace latentdem::cuda
