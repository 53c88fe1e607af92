// Everything of blur_fidelity and blur_proximal that lies between the transforms of the rows, in one pass, for images
// whose height is a power of two from 64 to 1024; the formulas are in latentdem_ext/reference/fourier.py. All arrays
// are contiguous; `columns` is width / 2 + 1.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>
#include <vector_types.h>

namespace latentdem::cuda {

// conj(otf) (y_hat - otf x_hat), divided by |otf|^2 + rho where rho is given, transformed back along columns and
// scaled by 1 / (height width).
struct BlurColumns {
    float2 *rows;        // batch x channels x height x columns: transforms of the rows of x, overwritten by the result
    const float *kernel; // batch x size x size
    const float2 *y_hat; // batch x channels x height x columns: the whole transform of y
    const float *rho;    // batch or null
    float *norm2;        // batch x channels x parts or null: sums that add up to ||y - k*x||^2
    std::int64_t batch, channels;
    int height, width; // of the image
    int size;          // of the kernel, at most height and width
    int parts;         // ceil(columns / 4)
};

cudaError_t launch(const BlurColumns &blur, cudaStream_t stream);

} // namespace latentdem::cuda
