// Sum and maximum over the threads of a block.
#pragma once

#include <cuda_runtime.h>

namespace latentdem::cuda {

// `join` of the values of the block, handed to every thread; the order is fixed, so every run gives the same bits.
// `Threads` is a multiple of 32. Each use of a block needs shared memory of its own: Threads / 32 numbers.
template <int Threads, class Join>
__device__ __forceinline__ float block_reduce(float value, float *shared, Join join) {
    static_assert(Threads % 32 == 0, "whole warps");
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2)
        value = join(value, __shfl_down_sync(0xffffffffu, value, offset));
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = value;
    __syncthreads();
    float total = shared[0];
#pragma unroll
    for (int warp = 1; warp < Threads / 32; ++warp)
        total = join(total, shared[warp]);
    return total;
}

template <int Threads>
__device__ __forceinline__ float block_sum(float value, float *shared) {
    return block_reduce<Threads>(value, shared, [](float a, float b) { return a + b; });
}

template <int Threads>
__device__ __forceinline__ float block_maximum(float value, float *shared) {
    return block_reduce<Threads>(value, shared, [](float a, float b) { return a < b ? b : a; });
}

} // namespace latentdem::cuda
