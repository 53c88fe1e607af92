// All iterations of an M-step with the kernel denoiser in one launch; the formula is in
// latentdem_ext/reference/plug_and_play.py. All arrays are contiguous.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

namespace latentdem::cuda {

constexpr int kDenoiserLayers = 5;
constexpr int kDenoiserChannels = 32; // between the layers

struct HqsMStep {
    const float *kernel;    // batch x size x size
    const float *data_term; // batch x size x size
    const float *filter;    // batch x side x (side / 2 + 1)
    const float *level;     // batch, of the noise
    // Of the layers, 3 x 3 x inputs x outputs, aligned to 16 bytes, and outputs; the first has 2 inputs, the last one
    // output.
    const float *weights[kDenoiserLayers], *biases[kDenoiserLayers];
    float *updated;  // batch x size x size, may not overlap the inputs
    void *workspace; // of `workspace_bytes`, aligned to 256
    std::int64_t batch;
    int size, side; // 2 size <= side, and side is 32, 64 or 128
    bool relative;  // levels are in units of each kernel's peak, else of the kernel
    int iterations; // at least one
};

std::size_t workspace_bytes(const HqsMStep &step);

cudaError_t launch(const HqsMStep &step, cudaStream_t stream);

} // namespace latentdem::cuda
