// An update of a kernel on its padded grid, data_term + crop F^-1[filter F kernel], by one block in shared memory.
//
// The padded grid has M x M points, the kernel sits in a quarter of it:
//   rows      p and p + M/4 of the kernel are the real and the imaginary part of one line; M/4 transforms;
//   columns   1 .. M/2-1 of the half spectrum, and as column 0 the real zero and Nyquist columns in one; each
//             is transformed, filtered and transformed back by the same threads;
//   rows      back in pairs, of which the first M/2 points are wanted.
#pragma once

#include <cstdint>

#include "block_sum.cuh"
#include "fft.cuh"
#include "project.cuh"

namespace latentdem::cuda {

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

// One block's updates of one image after another. Every thread of the block makes every call.
template <int M>
class PaddedUpdate {
    using L = PaddedGrid<M>;
    static constexpr int A = L::A, B = L::B;

  public:
    // `memory` has L::bytes.
    __device__ __forceinline__ PaddedUpdate(float2 *memory, const int &size)
        : size(size), column(static_cast<int>(threadIdx.x) % L::columns), t(static_cast<int>(threadIdx.x) / L::columns),
          line(static_cast<int>(threadIdx.x) % L::pairs), s(static_cast<int>(threadIdx.x) / L::pairs), has_line(s < B),
          roots(memory + L::roots), edges(memory + L::edges), first_column(memory + L::first_column),
          exchange(memory + L::exchange), lines(memory + L::lines), sums(reinterpret_cast<float *>(memory + L::sums)),
          image(reinterpret_cast<float *>(lines)), data(reinterpret_cast<float *>(memory + L::data)) {}

    // Asks for the filter and the data term (size x size) of an image in global memory.
    __device__ __forceinline__ void load(const float *filter, const float *data_term) {
#pragma unroll
        for (int a = 0; a < L::half; ++a) {
            const int row = B * a + t;
            data[row * L::columns + column] = inside(row) ? data_term[row * size + column] : 0.0f;
        }
#pragma unroll
        for (int j = 0; j < L::groups; ++j)
#pragma unroll
            for (int k2 = 0; k2 < B; ++k2)
                gain[j][k2] = scale * filter[(t + B * j + A * k2) * (M / 2 + 1) + column];
        const int thread = static_cast<int>(threadIdx.x);
        if (thread < M) {
            const float *const row = filter + thread * (M / 2 + 1);
            edges[thread] = {row[0], row[M / 2]};
            sincospif(-2.0f / M * static_cast<float>(thread), &roots[thread].y, &roots[thread].x);
        }
    }

    // The kernel becomes value(row, column), with `project` clipped and normalised. Only a barrier makes it visible.
    template <class Value>
    __device__ __forceinline__ void set(bool project, Value value) {
        float sum = 0.0f;
#pragma unroll
        for (int a = 0; a < L::half; ++a) {
            const int row = B * a + t;
            float number = inside(row) ? value(row, column) : 0.0f;
            if (project)
                number = clip(number);
            image[row * L::image_pitch + column] = number;
            sum += number;
        }
        if (project) {
            sum = block_sum<L::threads>(sum, sums);
#pragma unroll
            for (int a = 0; a < L::half; ++a) {
                const int row = B * a + t;
                float &number = image[row * L::image_pitch + column];
                number = inside(row) ? normalised(number, sum, size) : 0.0f;
            }
        }
    }

    // function(row, column, value) for the values of the kernel that this thread has set, in coalesced order.
    template <class Function>
    __device__ __forceinline__ void each(Function function) const {
        for (int row = t; row < size; row += B)
            if (column < size)
                function(row, column, image[row * L::image_pitch + column]);
    }

    // The largest of the values that the threads give, behind a barrier after `set`.
    __device__ __forceinline__ float maximum(float value) const { return block_maximum<L::threads>(value, sums); }

    // The update, after a barrier behind `load` and `set`.
    __device__ __forceinline__ void update(bool project) {
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

        // In coalesced order; the image is the kernel of the next update.
        set(project, [&](int row, int column) {
            return data[row * L::columns + column] + image[row * L::image_pitch + column];
        });
    }

  private:
    static constexpr float scale = 1.0f / (M * M);

    const int &size;     // an argument of the launch, which takes no register
    const int column, t; // for columns, and rows t, t + B, ... of the image
    const int line, s;   // for lines, half of the threads
    const bool has_line;
    float2 *const roots, *const edges, *const first_column, *const exchange, *const lines;
    float *const sums;
    // The image takes the place of the spectra of the lines, before they exist and after they are used.
    float *const image, *const data;
    float gain[L::groups][B];

    __device__ __forceinline__ bool inside(int row) const { return row < size && column < size; }
};

} // namespace latentdem::cuda
