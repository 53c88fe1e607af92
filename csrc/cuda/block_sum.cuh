// Sum over the threads of a block.
#pragma once

#include <cuda_runtime.h>

namespace latentdem::cuda {

// The sum of `value` over the block, handed to every thread; the order of the additions is fixed, so every run
// gives the same bits. `Threads` is a multiple of 32. Each use of a block needs shared memory of its own:
// Threads / 32 numbers.
template <int Threads>
__device__ __forceinline__ float block_sum(float value, float *shared) {
    static_assert(Threads % 32 == 0, "whole warps");
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2)
        value += __shfl_down_sync(0xffffffffu, value, offset);
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = value;
    __syncthreads();
    float total = 0.0f;
#pragma unroll
    for (int warp = 0; warp < Threads / 32; ++warp)
        total += shared[warp];
    return total;
}

} // namespace latentdem::cuda
