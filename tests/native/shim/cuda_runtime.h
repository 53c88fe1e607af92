// CUDA for a C++ compiler: the part of it that csrc/cuda uses. The blocks of a launch run one after another, those of a
// cooperative launch together, the threads of a block as fibers, each until its next barrier; shim.cpp has the
// scheduler.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>

#define LATENTDEM_SHIM

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static // one block at a time: not for cooperative kernels

struct alignas(8) float2 {
    float x, y;
};

struct alignas(16) float4 {
    float x, y, z, w;
};

struct dim3 {
    unsigned x, y, z;
    explicit dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue, cudaErrorLaunchFailure };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };
using cudaStream_t = struct CUstream_st *;

cudaError_t cudaGetLastError();
const char *cudaGetErrorString(cudaError_t error);

// Memory of the device is that of the host.
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
inline cudaError_t cudaMalloc(void **memory, std::size_t bytes) { return *memory = std::malloc(bytes), cudaSuccess; }
inline cudaError_t cudaFree(void *memory) { return std::free(memory), cudaSuccess; }
inline cudaError_t cudaMemcpy(void *to, const void *from, std::size_t bytes, cudaMemcpyKind) {
    return std::memcpy(to, from, bytes), cudaSuccess;
}
inline cudaError_t cudaMemset(void *memory, int value, std::size_t bytes) {
    return std::memset(memory, value, bytes), cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() { return cudaGetLastError(); }

inline cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidValue; }

// A device of three processors that hold one block each.
inline cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr, int) { return *value = 3, cudaSuccess; }
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, Kernel, int, std::size_t) {
    return *blocks = 1, cudaSuccess;
}

namespace shim {

struct Thread {
    dim3 thread, block, grid;
};

const Thread &current();
void *dynamic_shared();
void allow_dynamic_shared(const void *kernel, int bytes);
void launch(const void *kernel, dim3 grid, dim3 block, std::size_t shared, const std::function<void()> &body);
cudaError_t launch_cooperative(const void *kernel, dim3 grid, dim3 block, std::size_t shared,
                               const std::function<void()> &body);
void wait_for_block(const char *file, int line);
void wait_for_grid(const char *file, int line);
float shuffle_down(float value, unsigned offset, const char *file, int line);

template <unsigned Mask>
float shuffle_down_of(float value, unsigned offset, const char *file, int line) {
    static_assert(Mask == 0xffffffffu, "the shim knows shuffles of whole warps only");
    return shuffle_down(value, offset, file, line);
}

} // namespace shim

template <class... Arguments>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Arguments...), cudaFuncAttribute, int bytes) {
    shim::allow_dynamic_shared(reinterpret_cast<const void *>(kernel), bytes);
    return cudaSuccess;
}

// As cudaLaunchCooperativeKernel, for a kernel with one parameter.
template <class Params>
cudaError_t launch_cooperative_of(void (*kernel)(Params), dim3 grid, dim3 block, std::size_t shared, void **arguments) {
    const Params params = *static_cast<const Params *>(arguments[0]);
    return shim::launch_cooperative(reinterpret_cast<const void *>(kernel), grid, block, shared,
                                    [=] { kernel(params); });
}

inline void sincospi(double x, double *sine, double *cosine) {
    *sine = std::sin(M_PI * x);
    *cosine = std::cos(M_PI * x);
}

inline void sincospif(float x, float *sine, float *cosine) {
    *sine = static_cast<float>(std::sin(M_PI * static_cast<double>(x)));
    *cosine = static_cast<float>(std::cos(M_PI * static_cast<double>(x)));
}

#define threadIdx (shim::current().thread)
#define blockIdx (shim::current().block)
#define gridDim (shim::current().grid)
#define __syncthreads() shim::wait_for_block(__FILE__, __LINE__)
#define LATENTDEM_GRID_BARRIER() shim::wait_for_grid(__FILE__, __LINE__)
#define __shfl_down_sync(mask, value, offset)                                                                          \
    shim::shuffle_down_of<mask>(value, static_cast<unsigned>(offset), __FILE__, __LINE__)

#define LATENTDEM_DYNAMIC_SHARED(type, name) type *const name = static_cast<type *>(shim::dynamic_shared())
#define LATENTDEM_LAUNCH(kernel, grid, block, shared, stream, ...)                                                     \
    (static_cast<void>(stream),                                                                                        \
     shim::launch(reinterpret_cast<const void *>(&kernel), grid, block, shared, [=] { kernel(__VA_ARGS__); }))
#define LATENTDEM_LAUNCH_COOPERATIVE(kernel, grid, block, shared, stream, arguments)                                   \
    (static_cast<void>(stream), launch_cooperative_of(&(kernel), grid, block, shared, arguments))
