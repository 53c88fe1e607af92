// solution = N / (D + a) and response = a / (D + a) with N = sum conj(F x_j) F y_j and D = sum |F x_j|^2, j over
// samples and channels, or for each channel alone and then the mean over them; and the crop of both.
#include "hqs_prepare.hpp"

#include "complex.cuh"
#include "launch.cuh"

namespace latentdem::cuda {
namespace {

constexpr int kThreads = 256;

template <bool PerChannel>
__global__ void __launch_bounds__(kThreads) solve_kernel(HqsSolve s) {
    const std::int64_t image = blockIdx.x;
    const float2 *const x_hat = s.x_hat + image * s.samples * s.channels * s.points;
    const float2 *const y_hat = s.y_hat + image * s.channels * s.points;
    const float a = s.weight[image];
    for (std::int64_t i = blockIdx.y * kThreads + threadIdx.x; i < s.points; i += s.parts * kThreads) {
        float2 numerator{0.0f, 0.0f}, solved{0.0f, 0.0f};
        float power = 0.0f, share = 0.0f;
        for (std::int64_t c = 0; c < s.channels; ++c) {
            float2 sum{0.0f, 0.0f};
            for (std::int64_t j = 0; j < s.samples; ++j) {
                const float2 x = x_hat[(j * s.channels + c) * s.points + i];
                sum = sum + x;
                power += norm2(x);
            }
            numerator = numerator + conj(sum) * y_hat[c * s.points + i];
            if (PerChannel || c == s.channels - 1) {
                solved = solved + numerator / (power + a);
                share += a / (power + a);
                numerator = {0.0f, 0.0f};
                power = 0.0f;
            }
        }
        const float count = PerChannel ? static_cast<float>(s.channels) : 1.0f;
        float2 *const solution = s.spectra + image * s.points + i;
        solution[0] = solved / count;
        solution[s.batch * s.points] = {share / count, 0.0f}; // the response
    }
}

__global__ void __launch_bounds__(kThreads) crop_kernel(HqsCrop c) {
    const std::int64_t image = blockIdx.x;
    const float *const solution = c.solution + image * c.height * c.width;
    const float *const response = c.response + image * c.height * c.width;
    const auto at = [&c](const float *plane, int row, int column) {
        return plane[(row < 0 ? row + c.height : row) * c.width + (column < 0 ? column + c.width : column)];
    };
    const auto lag = [&c](std::int64_t index) { return static_cast<int>(2 * index < c.side ? index : index - c.side); };
    const std::int64_t points = static_cast<std::int64_t>(c.side) * c.side; // may be above 2^31
    for (std::int64_t i = blockIdx.y * kThreads + threadIdx.x; i < points; i += c.parts * kThreads) {
        const int row = lag(i / c.side), column = lag(i % c.side);
        const bool reached = -c.size < row && row < c.size && -c.size < column && column < c.size;
        c.padded[image * points + i] = reached ? at(response, row, column) : 0.0f;
        if (i < c.size * c.size) // less than side^2
            c.data_term[image * c.size * c.size + i] =
                at(solution, static_cast<int>(i / c.size) - c.size / 2, static_cast<int>(i % c.size) - c.size / 2);
    }
}

} // namespace

cudaError_t launch(const HqsSolve &solve, cudaStream_t stream) {
    if (solve.batch == 0)
        return cudaSuccess;
    const dim3 grid(static_cast<unsigned>(solve.batch), static_cast<unsigned>(solve.parts));
    if (solve.per_channel)
        LATENTDEM_LAUNCH(solve_kernel<true>, grid, dim3(kThreads), 0, stream, solve);
    else
        LATENTDEM_LAUNCH(solve_kernel<false>, grid, dim3(kThreads), 0, stream, solve);
    return cudaGetLastError();
}

cudaError_t launch(const HqsCrop &crop, cudaStream_t stream) {
    if (crop.batch == 0)
        return cudaSuccess;
    LATENTDEM_LAUNCH(crop_kernel, dim3(static_cast<unsigned>(crop.batch), static_cast<unsigned>(crop.parts)),
                     dim3(kThreads), 0, stream, crop);
    return cudaGetLastError();
}

} // namespace latentdem::cuda
