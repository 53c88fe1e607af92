// How kernels are started, wait for each other and get their dynamic shared memory. Macros, because tests/native
// compiles the same sources with a C++ compiler: its cuda_runtime.h defines them for threads that run one after
// another.
#pragma once

#include <atomic>

#include <cuda_runtime.h>

#ifndef LATENTDEM_LAUNCH
#define LATENTDEM_LAUNCH(kernel, grid, block, shared, stream, ...) kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)
#endif

#ifndef LATENTDEM_DYNAMIC_SHARED
#define LATENTDEM_DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

// All blocks of a cooperative kernel, which are on the device together, wait for each other.
#ifndef LATENTDEM_GRID_BARRIER
#include <cooperative_groups.h>
#define LATENTDEM_GRID_BARRIER() cooperative_groups::this_grid().sync()
#endif

#ifndef LATENTDEM_LAUNCH_COOPERATIVE
#define LATENTDEM_LAUNCH_COOPERATIVE(kernel, grid, block, shared, stream, arguments)                                   \
    cudaLaunchCooperativeKernel(reinterpret_cast<const void *>(&kernel), grid, block, arguments, shared, stream)
#endif

namespace latentdem::cuda {

// Lets a block of a kernel have `bytes` of dynamic shared memory, always as many; asks the driver once for each device.
template <auto Kernel>
cudaError_t allow_shared(std::size_t bytes) {
    static std::atomic<std::uint64_t> allowed{0}; // a bit for each device
    if (bytes <= (48 << 10))                      // what a block gets by default
        return cudaSuccess;
    int device = 0;
    cudaError_t error = cudaGetDevice(&device);
    const std::uint64_t bit = device < 64 ? std::uint64_t{1} << device : 0;
    if (error != cudaSuccess || (allowed & bit) != 0)
        return error;
    error = cudaFuncSetAttribute(Kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    if (error == cudaSuccess)
        allowed |= bit;
    return error;
}

// Starts a cooperative kernel with as many blocks as the device holds at once, but not more than `most`.
template <class Params>
cudaError_t launch_cooperative(void (*kernel)(Params), Params params, std::int64_t most, int threads, std::size_t bytes,
                               cudaStream_t stream) {
    int device = 0, processors = 0, blocks = 0;
    cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    if (error == cudaSuccess)
        error = cudaGetDevice(&device);
    if (error == cudaSuccess)
        error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (error == cudaSuccess)
        error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, bytes);
    if (error != cudaSuccess)
        return error;
    const std::int64_t held = static_cast<std::int64_t>(blocks) * processors;
    void *arguments[] = {&params};
    return LATENTDEM_LAUNCH_COOPERATIVE(*kernel, dim3(static_cast<unsigned>(held < most ? held : most)), dim3(threads),
                                        bytes, stream, arguments);
}

} // namespace latentdem::cuda
