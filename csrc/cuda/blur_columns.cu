// Columns of the residual of a blurred image: transformed, filtered and transformed back by the same block. The rows of
// the kernel are transformed by direct sums, a few columns of few points: another launch would take longer.
#include "blur_columns.hpp"

#include "block_sum.cuh"
#include "column_fft.cuh"
#include "launch.cuh"

namespace latentdem::cuda {
namespace {

// With rho it is the proximal step, without it the fidelity.
template <int H, bool Proximal>
__global__ void __launch_bounds__(H) columns_kernel(BlurColumns b) {
    LATENTDEM_DYNAMIC_SHARED(float2, memory);
    using Block = ColumnBlock<H>;
    Block block(memory);
    const std::int64_t plane = blockIdx.x, image = plane / b.channels;
    const int columns = b.width / 2 + 1, column = static_cast<int>(blockIdx.y) * kColumns + Block::column();
    const bool inside = column < columns;
    const float *const kernel = b.kernel + image * b.size * b.size;
    const float2 *const y_hat = b.y_hat + plane * H * columns + column;
    float2 *const rows = b.rows + plane * H * columns + column;

    // The transfer function: point (i, j) of the kernel lies at (i - size / 2, j - size / 2), modulo H and width.
    float2 *const factors = block.spare; // exp(-2 pi i column (j - size / 2) / width)
    for (int j = Block::row(0); j < b.size; j += H / kColumns) {
        const std::int64_t turns = static_cast<std::int64_t>(column) * (j - b.size / 2) % b.width;
        float2 &factor = factors[j * kColumns + Block::column()];
        sincospif(-2.0f * static_cast<float>(turns) / static_cast<float>(b.width), &factor.y, &factor.x);
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < Block::points; ++n) {
        const int row = Block::row(n), i = (row + b.size / 2) & (H - 1);
        float2 sum{0.0f, 0.0f};
        if (i < b.size)
            for (int j = 0; j < b.size; ++j)
                sum = sum + kernel[i * b.size + j] * factors[j * kColumns + Block::column()];
        block.at(row) = sum;
    }
    block.template transform<false>();
    float2 otf[Block::points];
#pragma unroll
    for (int n = 0; n < Block::points; ++n) {
        otf[n] = block.at(Block::row(n));
        block.at(Block::row(n)) = inside ? rows[Block::row(n) * columns] : float2{0.0f, 0.0f};
    }
    block.template transform<false>();

    const float rho = Proximal ? b.rho[image] : 0.0f;
    float power = 0.0f;
#pragma unroll
    for (int n = 0; n < Block::points; ++n) {
        const int row = Block::row(n);
        const float2 h = otf[n], seen = inside ? y_hat[row * columns] : float2{0.0f, 0.0f};
        const float2 residual = seen - h * block.at(row);
        block.at(row) = Proximal ? conj(h) * residual / (norm2(h) + rho) : conj(h) * residual;
        power += norm2(residual);
    }
    block.template transform<true>();
    const float area = static_cast<float>(H) * static_cast<float>(b.width);
#pragma unroll
    for (int n = 0; n < Block::points; ++n)
        if (inside)
            rows[Block::row(n) * columns] = 1.0f / area * block.at(Block::row(n));
    if constexpr (!Proximal) {
        __shared__ float sums[H / 32];
        // A column of the half spectrum counts for its mirror image too, except zero and Nyquist.
        power = block_sum<H>(column == 0 || 2 * column == b.width ? power : 2.0f * power, sums);
        if (threadIdx.x == 0)
            b.norm2[plane * b.parts + blockIdx.y] = power / area; // by Parseval
    }
}

template <int H, bool Proximal>
cudaError_t launch_columns(const BlurColumns &blur, cudaStream_t stream) {
    constexpr std::size_t bytes = ColumnBlock<H>::bytes;
    const cudaError_t error = allow_shared<columns_kernel<H, Proximal>>(bytes);
    if (error != cudaSuccess)
        return error;
    const dim3 grid(static_cast<unsigned>(blur.batch * blur.channels), static_cast<unsigned>(blur.parts));
    LATENTDEM_LAUNCH((columns_kernel<H, Proximal>), grid, dim3(H), bytes, stream, blur);
    return cudaGetLastError();
}

template <int H>
cudaError_t launch_height(const BlurColumns &blur, cudaStream_t stream) {
    return blur.rho ? launch_columns<H, true>(blur, stream) : launch_columns<H, false>(blur, stream);
}

} // namespace

cudaError_t launch(const BlurColumns &blur, cudaStream_t stream) {
    if (blur.parts != column_blocks(blur.width / 2 + 1) || blur.size > blur.height || blur.size > blur.width)
        return cudaErrorInvalidValue;
    if (blur.batch * blur.channels == 0)
        return cudaSuccess;
    switch (blur.height) {
    case 64:
        return launch_height<64>(blur, stream);
    case 128:
        return launch_height<128>(blur, stream);
    case 256:
        return launch_height<256>(blur, stream);
    case 512:
        return launch_height<512>(blur, stream);
    case 1024:
        return launch_height<1024>(blur, stream);
    default:
        return cudaErrorInvalidValue;
    }
}

} // namespace latentdem::cuda
