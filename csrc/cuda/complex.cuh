// Arithmetic of complex numbers.
#pragma once

#include <cuda_runtime.h>

namespace latentdem::cuda {

__device__ __forceinline__ float2 operator+(float2 a, float2 b) { return {a.x + b.x, a.y + b.y}; }

__device__ __forceinline__ float2 operator-(float2 a, float2 b) { return {a.x - b.x, a.y - b.y}; }

__device__ __forceinline__ float2 operator*(float2 a, float2 b) {
    return {a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x};
}

__device__ __forceinline__ float2 operator*(float s, float2 a) { return {s * a.x, s * a.y}; }

__device__ __forceinline__ float2 operator/(float2 a, float s) { return {a.x / s, a.y / s}; }

__device__ __forceinline__ float2 conj(float2 a) { return {a.x, -a.y}; }

__device__ __forceinline__ float norm2(float2 a) { return a.x * a.x + a.y * a.y; }

} // namespace latentdem::cuda
