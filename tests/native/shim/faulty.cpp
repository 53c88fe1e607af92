// Kernels with the faults the shim is there to find, and one without.
#include "cuda_runtime.h"

#include "launch.cuh"

namespace {

constexpr int kThreads = 64;

enum Fault { none, missing_barrier, barrier_for_some, different_barriers, unwritten_memory, too_much_memory };
enum GridFault { no_grid_fault, missing_grid_barrier, grid_barrier_for_some, too_many_blocks };

template <Fault fault>
__global__ void neighbours(float *out) {
    LATENTDEM_DYNAMIC_SHARED(float, memory);
    const unsigned thread = threadIdx.x;
    if (fault != unwritten_memory || thread != 5)
        memory[thread] = static_cast<float>(thread);
    if (fault == barrier_for_some) {
        if (thread < 32)
            __syncthreads();
    } else if (fault == different_barriers) {
        if (thread < 32)
            __syncthreads();
        else
            __syncthreads();
    } else if (fault != missing_barrier) {
        __syncthreads();
    }
    out[thread] = memory[(thread + 1) % kThreads];
}

// Every block passes a number on to the next one.
template <GridFault fault>
__global__ void neighbouring_blocks(float *out) {
    const unsigned thread = threadIdx.x, block = blockIdx.x, next = (block + 1) % gridDim.x;
    out[block * kThreads + thread] = static_cast<float>(block);
    if (fault == no_grid_fault || fault == too_many_blocks || (fault == grid_barrier_for_some && block > 0))
        LATENTDEM_GRID_BARRIER();
    const float value = out[next * kThreads + thread];
    if (fault != grid_barrier_for_some)
        LATENTDEM_GRID_BARRIER();
    out[block * kThreads + thread] = value;
}

template <GridFault fault>
const char *run_grid(float *out) {
    void *arguments[] = {&out};
    const dim3 grid(fault == too_many_blocks ? 4 : 3);
    const cudaError_t error =
        LATENTDEM_LAUNCH_COOPERATIVE(neighbouring_blocks<fault>, grid, dim3(kThreads), 0, nullptr, arguments);
    return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

template <Fault fault>
const char *run(float *out) {
    const std::size_t bytes = fault == too_much_memory ? (48 << 10) + 1 : kThreads * sizeof(float);
    LATENTDEM_LAUNCH(neighbours<fault>, dim3(1), dim3(kThreads), bytes, nullptr, out);
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

} // namespace

// Runs one of the kernels on 64 floats and returns its error, or "".
extern "C" const char *latentdem_shim_faulty(int fault, float *out) {
    switch (fault) {
    case none:
        return run<none>(out);
    case missing_barrier:
        return run<missing_barrier>(out);
    case barrier_for_some:
        return run<barrier_for_some>(out);
    case different_barriers:
        return run<different_barriers>(out);
    case unwritten_memory:
        return run<unwritten_memory>(out);
    default:
        return run<too_much_memory>(out);
    }
}

// Runs one of the cooperative kernels on 3 x 64 floats and returns its error, or "".
extern "C" const char *latentdem_shim_faulty_grid(int fault, float *out) {
    switch (fault) {
    case no_grid_fault:
        return run_grid<no_grid_fault>(out);
    case missing_grid_barrier:
        return run_grid<missing_grid_barrier>(out);
    case grid_barrier_for_some:
        return run_grid<grid_barrier_for_some>(out);
    default:
        return run_grid<too_many_blocks>(out);
    }
}
