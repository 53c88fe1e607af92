// updated = data_term + crop F^-1[filter F kernel], clipped and normalised, again and again; one block for each image.
//
// The padded grid has M x M points, the kernel sits in a quarter of it, everything stays in shared memory:
//   rows      p and p + M/4 of the kernel are the real and the imaginary part of one line; M/4 transforms;
//   columns   1 .. M/2-1 of the half spectrum, and as column 0 the real zero and Nyquist columns in one; each
//             is transformed, filtered and transformed back by the same threads;
//   rows      back in pairs, of which the first M/2 points are wanted.
#include "hqs_kernel_update.hpp"

#include "block_sum.cuh"
#include "fft.cuh"
#include "launch.cuh"
#include "project.cuh"

namespace latentdem::cuda {
namespace {

template <int M>
struct PaddedGrid : Split<M> {
    static constexpr int columns = M / 2;
    static constexpr int pairs = M / 4;
    static constexpr int threads = columns * Split<M>::B;
    // Odd, so that neither along rows nor along columns threads of a warp meet in a bank.
    static constexpr int line_pitch = pairs + 1;
    static constexpr int image_pitch = columns + 1;

    // Shared memory, in complex numbers.
    static constexpr int roots = 0;                     // M roots of unity
    static constexpr int edges = roots + M;             // the filter in the columns zero and Nyquist
    static constexpr int first_column = edges + M;      // spectrum of column 0
    static constexpr int sums = first_column + M;       // of the warps
    static constexpr int exchange = sums + 16;          // M x columns, or M x pairs followed by:
    static constexpr int lines = exchange + M * pairs;  // M x line_pitch, spectra of the lines
    static constexpr int data = lines + M * line_pitch; // the data term; > exchange + M * columns
    static constexpr int total = data + columns * columns / 2;
    static constexpr std::size_t bytes = total * sizeof(float2);
};

template <int M>
__global__ void __launch_bounds__(PaddedGrid<M>::threads, 1) update_kernel(HqsKernelUpdate u) {
    using L = PaddedGrid<M>;
    constexpr int A = L::A, B = L::B;
    LATENTDEM_DYNAMIC_SHARED(float2, memory);
    float2 *const roots = memory + L::roots, *const edges = memory + L::edges;
    float2 *const first_column = memory + L::first_column;
    float2 *const exchange = memory + L::exchange, *const lines = memory + L::lines;
    // The image takes the place of the spectra of the lines, before they exist and after they are used.
    float *const image = reinterpret_cast<float *>(lines), *const data = reinterpret_cast<float *>(memory + L::data);

    const int thread = static_cast<int>(threadIdx.x);
    const int column = thread % L::columns, t = thread / L::columns; // for columns, and rows t, t + B, ... of the image
    const int line = thread % L::pairs, s = thread / L::pairs;       // for lines, half of the threads
    const bool has_line = s < B;

    const std::int64_t offset = static_cast<std::int64_t>(blockIdx.x) * u.size * u.size;
    const float *const kernel = u.kernel + offset, *const data_term = u.data_term + offset;
    const float *const filter = u.filter + static_cast<std::int64_t>(blockIdx.x) * M * (M / 2 + 1);
    constexpr float scale = 1.0f / (M * M);

    // Everything that is read from global memory is asked for here, where the waiting overlaps.
    float gain[L::groups][B];
#pragma unroll
    for (int a = 0; a < L::half; ++a) {
        const int row = B * a + t;
        const bool inside = row < u.size && column < u.size;
        image[row * L::image_pitch + column] = inside ? kernel[row * u.size + column] : 0.0f;
        data[row * L::columns + column] = inside ? data_term[row * u.size + column] : 0.0f;
    }
#pragma unroll
    for (int j = 0; j < L::groups; ++j)
#pragma unroll
        for (int k2 = 0; k2 < B; ++k2)
            gain[j][k2] = scale * filter[(t + B * j + A * k2) * (M / 2 + 1) + column];
    if (thread < M) {
        const float *const row = filter + thread * (M / 2 + 1);
        edges[thread] = {row[0], row[M / 2]};
        sincospif(-2.0f / M * static_cast<float>(thread), &roots[thread].y, &roots[thread].x);
    }
    __syncthreads();

#pragma unroll 1
    for (int iteration = 1;; ++iteration) {
        // Rows.
        float2 x[L::half], spectrum[L::groups][B];
        if (has_line) {
#pragma unroll
            for (int a = 0; a < L::half; ++a) {
                const float *const point = image + line * L::image_pitch + B * a + s;
                x[a] = {point[0], point[L::pairs * L::image_pitch]};
            }
        }
        forward<M, L::pairs>(x, spectrum, exchange + line, roots, s, has_line);
        if (has_line) {
#pragma unroll
            for (int j = 0; j < L::groups; ++j)
#pragma unroll
                for (int k2 = 0; k2 < B; ++k2)
                    lines[(s + B * j + A * k2) * L::line_pitch + line] = spectrum[j][k2];
        }
        __syncthreads();

        // Columns: with Z the spectrum of row p + i row q, that of row p is (Z[c] + conj Z[-c]) / 2 and that of row q
        // (Z[c] - conj Z[-c]) / 2i. `opposite` is the place of -c, and in column 0 that of Nyquist.
        const int opposite = column == 0 ? M / 2 : M - column;
#pragma unroll
        for (int a = 0; a < L::half / 2; ++a) {
            const float2 z = lines[column * L::line_pitch + B * a + t], w = lines[opposite * L::line_pitch + B * a + t];
            x[a] = column == 0 ? float2{z.x, w.x} : float2{0.5f * (z.x + w.x), 0.5f * (z.y - w.y)};
            x[a + L::half / 2] = column == 0 ? float2{z.y, w.y} : float2{0.5f * (z.y + w.y), 0.5f * (w.x - z.x)};
        }
        __syncthreads(); // `exchange` reaches over `lines`
        forward<M, L::columns>(x, spectrum, exchange + column, roots, t, true);
        if (column == 0) {
#pragma unroll
            for (int j = 0; j < L::groups; ++j)
#pragma unroll
                for (int k2 = 0; k2 < B; ++k2)
                    first_column[t + B * j + A * k2] = spectrum[j][k2];
        }
        __syncthreads();

        // The filter. Column 0 is P = Z + i N with Z and N the spectra of two real columns, which take filters of their
        // own, f and g (their even parts: a real inverse transform has no use for the odd ones):
        // f Z + i g N = (f + g) / 2 P[r] + (f - g) / 2 conj P[-r].
#pragma unroll
        for (int j = 0; j < L::groups; ++j)
#pragma unroll
            for (int k2 = 0; k2 < B; ++k2) {
                if (column == 0) {
                    const int row = t + B * j + A * k2, mirror = (M - row) & (M - 1);
                    const float2 even = 0.5f * scale * (edges[row] + edges[mirror]);
                    spectrum[j][k2] = 0.5f * (even.x + even.y) * spectrum[j][k2] +
                                      0.5f * (even.x - even.y) * conj(first_column[mirror]);
                } else {
                    spectrum[j][k2] = gain[j][k2] * spectrum[j][k2];
                }
            }
        inverse<M, L::columns>(spectrum, x, exchange + column, roots, t, true);
        __syncthreads(); // `lines` shares the memory of `exchange`

        // Back to lines.
#pragma unroll
        for (int a = 0; a < L::half / 2; ++a) {
            const float2 p = x[a], q = x[a + L::half / 2];
            lines[column * L::line_pitch + B * a + t] = column == 0 ? float2{p.x, q.x} : float2{p.x - q.y, p.y + q.x};
            lines[opposite * L::line_pitch + B * a + t] = column == 0 ? float2{p.y, q.y} : float2{p.x + q.y, q.x - p.y};
        }
        __syncthreads();
        if (has_line) {
#pragma unroll
            for (int j = 0; j < L::groups; ++j)
#pragma unroll
                for (int k2 = 0; k2 < B; ++k2)
                    spectrum[j][k2] = lines[(s + B * j + A * k2) * L::line_pitch + line];
        }
        inverse<M, L::pairs>(spectrum, x, exchange + line, roots, s, has_line);
        if (has_line) {
#pragma unroll
            for (int a = 0; a < L::half; ++a) {
                float *const point = image + line * L::image_pitch + B * a + s;
                point[0] = x[a].x;
                point[L::pairs * L::image_pitch] = x[a].y;
            }
        }
        __syncthreads();

        // The end of the update, in coalesced order; the image is the kernel of the next one.
        float sum = 0.0f;
#pragma unroll
        for (int a = 0; a < L::half; ++a) {
            const int row = B * a + t;
            float &value = image[row * L::image_pitch + column];
            value = row < u.size && column < u.size ? data[row * L::columns + column] + value : 0.0f;
            if (u.project)
                value = clip(value);
            sum += value;
        }
        if (u.project) {
            sum = block_sum<L::threads>(sum, reinterpret_cast<float *>(memory + L::sums));
#pragma unroll
            for (int a = 0; a < L::half; ++a) {
                const int row = B * a + t;
                float &value = image[row * L::image_pitch + column];
                value = row < u.size && column < u.size ? normalised(value, sum, u.size) : 0.0f;
            }
        }
        if (iteration == u.iterations)
            break;
        __syncthreads();
    }
    for (int row = t; row < u.size; row += B)
        if (column < u.size)
            u.updated[offset + row * u.size + column] = image[row * L::image_pitch + column];
}

template <int M>
cudaError_t launch_padded(const HqsKernelUpdate &update, cudaStream_t stream) {
    const cudaError_t error = allow_shared<update_kernel<M>>(PaddedGrid<M>::bytes);
    if (error != cudaSuccess)
        return error;
    LATENTDEM_LAUNCH(update_kernel<M>, dim3(static_cast<unsigned>(update.batch)), dim3(PaddedGrid<M>::threads),
                     PaddedGrid<M>::bytes, stream, update);
    return cudaGetLastError();
}

} // namespace

cudaError_t launch(const HqsKernelUpdate &update, cudaStream_t stream) {
    if (2 * update.size > update.side || update.iterations < 1)
        return cudaErrorInvalidValue;
    if (update.batch == 0)
        return cudaSuccess;
    switch (update.side) {
    case 32:
        return launch_padded<32>(update, stream);
    case 64:
        return launch_padded<64>(update, stream);
    case 128:
        return launch_padded<128>(update, stream);
    default:
        return cudaErrorInvalidValue;
    }
}

} // namespace latentdem::cuda
