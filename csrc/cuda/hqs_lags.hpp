// Everything of hqs_prepare that lies between the transforms of the rows, in one pass, for images whose height is a
// power of two from 64 to 1024; the formulas are in latentdem_ext/reference/fourier.py. All arrays are contiguous;
// `columns` is width / 2 + 1.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>
#include <vector_types.h>

namespace latentdem::cuda {

// The least-squares solution and the response to the kernel at the lags a kernel can reach, still transformed along
// rows and scaled by 1 / (height width). Lag l is row l, or 2 size - 1 + l where it is negative.
struct HqsLags {
    const float2 *rows;  // batch x samples x channels x height x columns: transforms of the rows of the samples
    const float2 *y_hat; // batch x channels x height x columns: the whole transform of y
    const float *weight; // batch
    float2 *lags;        // 2 x batch x (2 size - 1) x columns: solutions, responses
    std::int64_t batch, samples, channels;
    int height, width; // of the image
    int size;          // of the kernel, at most height
    bool per_channel;  // mean of the channels' solutions instead of their joint least squares
};

cudaError_t launch(const HqsLags &lags, cudaStream_t stream);

} // namespace latentdem::cuda
