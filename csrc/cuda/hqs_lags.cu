// solution = N / (D + a) and response = a / (D + a) with N = sum conj(F x_j) F y_j and D = sum |F x_j|^2, j over
// samples and channels, or for each channel alone and then the mean over them; transformed back along columns.
#include "hqs_lags.hpp"

#include "column_fft.cuh"
#include "launch.cuh"

namespace latentdem::cuda {
namespace {

template <int H, bool PerChannel>
__global__ void __launch_bounds__(H) lags_kernel(HqsLags l) {
    LATENTDEM_DYNAMIC_SHARED(float2, memory);
    using Block = ColumnBlock<H>;
    Block block(memory);
    const std::int64_t image = blockIdx.x;
    const int columns = l.width / 2 + 1, column = static_cast<int>(blockIdx.y) * kColumns + Block::column();
    const bool inside = column < columns;
    const std::int64_t plane = static_cast<std::int64_t>(H) * columns;
    const float a = l.weight[image];

    float2 solution[Block::points] = {}, numerator[Block::points] = {};
    float response[Block::points] = {}, power[Block::points] = {};
    for (std::int64_t c = 0; c < l.channels; ++c) {
        float2 sum[Block::points] = {};
        for (std::int64_t j = 0; j < l.samples; ++j) {
            const float2 *const rows = l.rows + ((image * l.samples + j) * l.channels + c) * plane + column;
#pragma unroll
            for (int n = 0; n < Block::points; ++n)
                block.at(Block::row(n)) = inside ? rows[Block::row(n) * columns] : float2{0.0f, 0.0f};
            block.template transform<false>();
#pragma unroll
            for (int n = 0; n < Block::points; ++n) {
                const float2 x = block.at(Block::row(n));
                sum[n] = sum[n] + x;
                power[n] += norm2(x);
            }
        }
        const float2 *const y_hat = l.y_hat + (image * l.channels + c) * plane + column;
#pragma unroll
        for (int n = 0; n < Block::points; ++n) {
            const float2 y = inside ? y_hat[Block::row(n) * columns] : float2{0.0f, 0.0f};
            numerator[n] = numerator[n] + conj(sum[n]) * y;
            if (PerChannel || c == l.channels - 1) {
                solution[n] = solution[n] + numerator[n] / (power[n] + a);
                response[n] += a / (power[n] + a);
                numerator[n] = {0.0f, 0.0f};
                power[n] = 0.0f;
            }
        }
    }

    const float count = PerChannel ? static_cast<float>(l.channels) : 1.0f;
    const float scale = 1.0f / (count * static_cast<float>(H) * static_cast<float>(l.width));
    const int length = 2 * l.size - 1;
    for (int part = 0; part < 2; ++part) {
        __syncthreads(); // rows of other threads were read
#pragma unroll
        for (int n = 0; n < Block::points; ++n)
            block.at(Block::row(n)) = part == 0 ? solution[n] : float2{response[n], 0.0f};
        block.template transform<true>();
        float2 *const lags = l.lags + (part * l.batch + image) * length * columns + column;
        for (int i = Block::row(0); i < length; i += H / kColumns) {
            const int lag = i < l.size ? i : i - length;
            if (inside)
                lags[i * columns] = scale * block.at(lag & (H - 1)); // modulo H
        }
    }
}

template <int H, bool PerChannel>
cudaError_t launch_lags(const HqsLags &lags, cudaStream_t stream) {
    constexpr std::size_t bytes = ColumnBlock<H>::bytes;
    const cudaError_t error = allow_shared<lags_kernel<H, PerChannel>>(bytes);
    if (error != cudaSuccess)
        return error;
    const dim3 grid(static_cast<unsigned>(lags.batch), static_cast<unsigned>(column_blocks(lags.width / 2 + 1)));
    LATENTDEM_LAUNCH((lags_kernel<H, PerChannel>), grid, dim3(H), bytes, stream, lags);
    return cudaGetLastError();
}

template <int H>
cudaError_t launch_height(const HqsLags &lags, cudaStream_t stream) {
    return lags.per_channel ? launch_lags<H, true>(lags, stream) : launch_lags<H, false>(lags, stream);
}

} // namespace

cudaError_t launch(const HqsLags &lags, cudaStream_t stream) {
    if (lags.size > lags.height || lags.size > lags.width)
        return cudaErrorInvalidValue;
    if (lags.batch == 0)
        return cudaSuccess;
    switch (lags.height) {
    case 64:
        return launch_height<64>(lags, stream);
    case 128:
        return launch_height<128>(lags, stream);
    case 256:
        return launch_height<256>(lags, stream);
    case 512:
        return launch_height<512>(lags, stream);
    case 1024:
        return launch_height<1024>(lags, stream);
    default:
        return cudaErrorInvalidValue;
    }
}

} // namespace latentdem::cuda
