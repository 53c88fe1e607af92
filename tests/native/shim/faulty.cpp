// Kernels with the faults the shim is there to find, and one without.
#include "cuda_runtime.h"

#include "launch.cuh"

namespace {

constexpr int kThreads = 64;

enum Fault { none, missing_barrier, barrier_for_some, different_barriers, unwritten_memory, too_much_memory };

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
