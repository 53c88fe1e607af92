// The proximal step of a blur of which only some pixels were measured: four small launches and one cooperative kernel
// with all conjugate gradients, which leaves off when every sample has converged. The formulas are in
// latentdem_ext/reference/masked.py. All arrays are contiguous.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace latentdem::cuda {

struct MaskedProximal {
    const float *x0, *y; // batch x channels x height x width
    const float *fill;   // the same or null
    const float *mask;   // masks x height x width
    const float *kernel; // batch x size x size
    const float *rho;    // batch
    float *x, *filled;   // batch x channels x height x width
    void *workspace;     // of `workspace_bytes`, aligned to 256
    std::int64_t batch, masks, channels;
    int height, width; // of the image: `has_grid`
    int size;          // of the kernel, at most height and width
    int iterations;    // at most
    // Constants of the reference; `rounding` in units of 1.
    double tolerance, caution, caution_with_holes, rounding, least;
};

// Whether the transforms take this grid.
bool has_grid(int height, int width);

// 0 for a grid that they do not take.
std::size_t workspace_bytes(const MaskedProximal &problem);

cudaError_t launch(const MaskedProximal &problem, cudaStream_t stream);

} // namespace latentdem::cuda
