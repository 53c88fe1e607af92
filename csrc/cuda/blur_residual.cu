// The residual of a blurred image in the Fourier domain: norm, adjoint blur and proximal correction in one pass.
#include "blur_residual.hpp"

#include "block_sum.cuh"
#include "complex.cuh"
#include "launch.cuh"

namespace latentdem::cuda {
namespace {

constexpr int kThreads = 256;

// With rho it is the proximal step, without it the fidelity.
template <bool Proximal>
__global__ void __launch_bounds__(kThreads) residual_kernel(BlurResidual r) {
    const std::int64_t image = blockIdx.x;
    const int columns = r.width / 2 + 1, points = r.height * columns;
    const float2 *const otf = r.otf + image * points, *const y_hat = r.y_hat + image * r.channels * points;
    float2 *const spectrum = r.spectrum + image * r.channels * points;
    const float rho = Proximal ? r.rho[image] : 0.0f;
    float power = 0.0f;
    for (int i = static_cast<int>(blockIdx.y * kThreads + threadIdx.x); i < points; i += r.parts * kThreads) {
        const float2 h = otf[i];
        const float2 gain = Proximal ? conj(h) / (norm2(h) + rho) : conj(h);
        float energy = 0.0f;
        for (std::int64_t c = 0; c < r.channels; ++c) {
            const float2 residual = y_hat[c * points + i] - h * spectrum[c * points + i];
            spectrum[c * points + i] = gain * residual;
            energy += norm2(residual);
        }
        // A column of the half spectrum counts for its mirror image too, except zero and Nyquist.
        const int column = i % columns;
        power += column == 0 || 2 * column == r.width ? energy : 2.0f * energy;
    }
    if constexpr (!Proximal) {
        __shared__ float sums[kThreads / 32];
        power = block_sum<kThreads>(power, sums);
        const float area = static_cast<float>(r.height) * static_cast<float>(r.width);
        if (threadIdx.x == 0)
            r.norm2[image * r.parts + blockIdx.y] = power / area; // by Parseval
    }
}

__global__ void __launch_bounds__(kThreads) glue_kernel(BlurGlue g) {
    const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (i < g.count) {
        const float correction = g.correction[i];
        g.glued[i] = g.x[i] + correction;
        g.correction[i] = -2.0f * correction;
    }
}

} // namespace

cudaError_t launch(const BlurResidual &residual, cudaStream_t stream) {
    if (residual.batch == 0)
        return cudaSuccess;
    const dim3 grid(static_cast<unsigned>(residual.batch), static_cast<unsigned>(residual.parts));
    if (residual.rho)
        LATENTDEM_LAUNCH(residual_kernel<true>, grid, dim3(kThreads), 0, stream, residual);
    else
        LATENTDEM_LAUNCH(residual_kernel<false>, grid, dim3(kThreads), 0, stream, residual);
    return cudaGetLastError();
}

cudaError_t launch(const BlurGlue &glue, cudaStream_t stream) {
    if (glue.count == 0)
        return cudaSuccess;
    const std::int64_t blocks = (glue.count + kThreads - 1) / kThreads;
    LATENTDEM_LAUNCH(glue_kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, glue);
    return cudaGetLastError();
}

} // namespace latentdem::cuda
