// The passes between and after the transforms of blur_fidelity and blur_proximal; the formulas are in
// latentdem_ext/reference/fourier.py. All arrays are contiguous; a half spectrum has height x columns complex
// numbers.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>
#include <vector_types.h>

namespace latentdem::cuda {

// conj(otf) (y_hat - otf x_hat), divided by |otf|^2 + rho where rho is given.
struct BlurResidual {
    float2 *spectrum;    // batch x channels x points: x_hat, overwritten by the result
    const float2 *y_hat; // batch x channels x points
    const float2 *otf;   // batch x points
    const float *rho;    // batch or null
    float *norm2;        // batch x parts or null: sums that add up to ||y - k*x||^2
    std::int64_t batch, channels;
    int height, width; // of the image
    int parts;         // blocks for one image
};

// gradient = -2 correction, glued = x + correction.
struct BlurGlue {
    float *correction; // count numbers, overwritten by the gradient
    const float *x;    // count
    float *glued;      // count
    std::int64_t count;
};

cudaError_t launch(const BlurResidual &residual, cudaStream_t stream);
cudaError_t launch(const BlurGlue &glue, cudaStream_t stream);

} // namespace latentdem::cuda
