// Complex Fourier transforms of whole columns of a few neighbouring columns of a plane, in shared memory: H points, a
// power of two. A block of H threads works on kColumns columns; a row of theirs is one sector of global memory, and
// what is done between the transform and its inverse stays on the chip. Stockham's algorithm: after a step with
// radix R, whose input are sequences of length Ns transformed so far, sequences of length R Ns are, in order.
#pragma once

#include "complex.cuh"
#include "fft.cuh"

namespace latentdem::cuda {

constexpr int kColumns = 4;

// A block's threads and shared memory.
template <int H>
struct ColumnBlock {
    static_assert((H & (H - 1)) == 0 && H >= 64 && H <= 1024, "a power of two that is a number of threads");
    static constexpr int points = kColumns; // of each thread
    static constexpr std::size_t bytes = (H + 2 * H * kColumns) * sizeof(float2);

    float2 *roots; // exp(-2 pi i n / H), n < H
    float2 *values, *spare;

    // Every thread calls this; a barrier must come before the first transform.
    __device__ explicit ColumnBlock(float2 *memory)
        : roots(memory), values(memory + H), spare(memory + H + H * kColumns) {
        const int thread = static_cast<int>(threadIdx.x);
        sincospif(-2.0f / H * static_cast<float>(thread), &roots[thread].y, &roots[thread].x);
    }

    // Row and column of the thread's point n; all points are those of some thread.
    __device__ static int row(int n) { return static_cast<int>(threadIdx.x) / kColumns + n * (H / kColumns); }
    __device__ static int column() { return static_cast<int>(threadIdx.x) % kColumns; }

    __device__ float2 &at(int row) { return values[row * kColumns + column()]; }

    // Transforms `values` in place of which it leaves the result, without a scale. The thread's points may be
    // written before and read after it without a barrier of the caller's.
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
