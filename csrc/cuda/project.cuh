// Non-negative, sum 1: the element-wise parts of project_kernel. A NaN passes through the clip into the sum, and a
// sum that is not positive makes the kernel uniform, as in the reference.
#pragma once

#include <cuda_runtime.h>

namespace latentdem::cuda {

__device__ __forceinline__ float clip(float value) { return value < 0.0f ? 0.0f : value; }

__device__ __forceinline__ float normalised(float value, float sum, int size) {
    return sum > 0.0f ? value / sum : 1.0f / (static_cast<float>(size) * static_cast<float>(size));
}

} // namespace latentdem::cuda
