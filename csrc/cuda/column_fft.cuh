// Complex Fourier transforms of columns of a plane in shared memory, H points each, a power of two. A block of H
// threads has kColumns neighbouring columns, so that a row of them is one sector of global memory, and what is done
// between a transform and its inverse stays on the chip. The algorithm is Stockham's: a step with radix R joins
// transforms of `length` points into transforms of R length points, and the last one leaves them in order.
#pragma once

#include "complex.cuh"
#include "fft.cuh"

namespace latentdem::cuda {

constexpr int kColumns = 4;

// The part of a thread in a block's transforms.
template <int H>
struct ColumnBlock {
    static_assert((H & (H - 1)) == 0 && H >= 64 && H <= 1024, "a power of two that is a number of threads");
    static constexpr int points = kColumns; // of every thread: H threads share H x kColumns of them
    static constexpr std::size_t bytes = (H + 2 * H * kColumns) * sizeof(float2);

    float2 *roots; // exp(-2 pi i n / H), n < H
    float2 *values, *spare;

    // Every thread of the block makes one; `transform` waits for what they write here.
    __device__ explicit ColumnBlock(float2 *memory)
        : roots(memory), values(memory + H), spare(memory + H + H * kColumns) {
        const int thread = static_cast<int>(threadIdx.x);
        sincospif(-2.0f / H * static_cast<float>(thread), &roots[thread].y, &roots[thread].x);
    }

    // Row of the thread's point n, and the column of all its points.
    __device__ static int row(int n) { return static_cast<int>(threadIdx.x) / kColumns + n * (H / kColumns); }
    __device__ static int column() { return static_cast<int>(threadIdx.x) % kColumns; }

    __device__ float2 &at(int row) { return values[row * kColumns + column()]; }

    // Transforms `values`, without a scale. No barrier is needed between it and what threads write to or read from
    // points of their own.
    template <bool Inverse>
    __device__ void transform() {
        __syncthreads();
        int length = 1;
        if constexpr (H == 128 || H == 512) { // else a power of four
            step<2, Inverse>(length);
            length = 2;
        }
        for (; length < H; length *= 4)
            step<4, Inverse>(length);
    }

  private:
    template <int R, bool Inverse>
    __device__ void step(int length) {
#pragma unroll
        for (int turn = 0; turn < kColumns / R; ++turn) {
            const int butterfly = row(0) + turn * (H / kColumns), k = butterfly & (length - 1);
            float2 x[R];
#pragma unroll
            for (int r = 0; r < R; ++r) {
                const float2 root = roots[r * k * (H / R / length)];
                x[r] = values[(butterfly + r * (H / R)) * kColumns + column()];
                if (r > 0)
                    x[r] = x[r] * (Inverse ? conj(root) : root);
            }
            dft<R, Inverse>(x);
            const int first = (butterfly - k) * R + k;
#pragma unroll
            for (int r = 0; r < R; ++r)
                spare[(first + r * length) * kColumns + column()] = x[r];
        }
        __syncthreads();
        float2 *const before = values;
        values = spare;
        spare = before;
    }
};

// Blocks that cover the columns of a plane.
inline int column_blocks(int columns) { return (columns + kColumns - 1) / kColumns; }

} // namespace latentdem::cuda
