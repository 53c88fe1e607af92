// The passes between the transforms of hqs_prepare; the formulas are in latentdem_ext/reference/fourier.py. All
// arrays are contiguous; a half spectrum has `points` complex numbers.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>
#include <vector_types.h>

namespace latentdem::cuda {

// Spectra of the least-squares solution and of the response to the kernel.
struct HqsSolve {
    const float2 *x_hat; // batch x samples x channels x points
    const float2 *y_hat; // batch x channels x points
    const float *weight; // batch
    float2 *spectra;     // 2 x batch x points: solutions, responses
    std::int64_t batch, samples, channels, points;
    int parts;        // blocks for one image
    bool per_channel; // mean of the channels' solutions instead of their joint least squares
};

// The two at the lags a kernel can reach.
struct HqsCrop {
    const float *solution, *response; // batch x height x width
    float *data_term;                 // batch x size x size
    float *padded;                    // batch x side x side, the response around (0, 0)
    std::int64_t batch, height, width;
    int size, side; // 2 size - 1 <= side, side even
    int parts;      // blocks for one image
};

cudaError_t launch(const HqsSolve &solve, cudaStream_t stream);
cudaError_t launch(const HqsCrop &crop, cudaStream_t stream);

} // namespace latentdem::cuda
