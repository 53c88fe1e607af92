// The least squares of the M-step for a blur of which only some pixels were measured: all conjugate gradients in one
// cooperative kernel, which leaves off when every sample has converged. The formulas are in
// latentdem_ext/reference/masked.py. All arrays are contiguous.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace latentdem::cuda {

struct MaskedKernel {
    const float *x;      // batch x images x height x width
    const float *mask;   // masks x height x width, weights from 0 to 1
    const float *weight; // batch
    const float *right;  // batch x size x size
    const float *factor; // batch x size^2 x size^2 or null
    float *solution;     // batch x size x size
    float *residual;     // the same
    void *workspace;     // of `workspace_bytes`, aligned to 256
    std::int64_t batch, masks, images;
    int height, width; // of the images: `has_grid` in masked_proximal.hpp
    int size;          // of the kernel, at most height and width
    int iterations;    // at most
    double allowed;    // upper limit of the squared preconditioned residual
};

// 0 for a grid that the transforms do not take.
std::size_t workspace_bytes(const MaskedKernel &problem);

cudaError_t launch(const MaskedKernel &problem, cudaStream_t stream);

} // namespace latentdem::cuda
