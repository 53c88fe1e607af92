// updated = data_term + crop F^-1[filter F kernel], clipped and normalised, again and again; one block for each image.
#include "hqs_kernel_update.hpp"

#include "launch.cuh"
#include "padded_update.cuh"

namespace latentdem::cuda {
namespace {

template <int M>
__global__ void __launch_bounds__(PaddedGrid<M>::threads, 1) update_kernel(HqsKernelUpdate u) {
    LATENTDEM_DYNAMIC_SHARED(float2, memory);
    PaddedUpdate<M> padded(memory, u.size);
    const std::int64_t offset = static_cast<std::int64_t>(blockIdx.x) * u.size * u.size;
    const float *const kernel = u.kernel + offset;
    padded.load(u.filter + static_cast<std::int64_t>(blockIdx.x) * M * (M / 2 + 1), u.data_term + offset);
    padded.set(false, [&](int row, int column) { return kernel[row * u.size + column]; });
    __syncthreads();
#pragma unroll 1
    for (int iteration = 1;; ++iteration) {
        padded.update(u.project);
        if (iteration == u.iterations)
            break;
        __syncthreads();
    }
    float *const updated = u.updated + offset;
    padded.each([&](int row, int column, float value) { updated[row * u.size + column] = value; });
}

template <int M>
cudaError_t launch_padded(const HqsKernelUpdate &update, cudaStream_t stream) {
    const cudaError_t error = allow_shared<update_kernel<M>>(PaddedGrid<M>::bytes);
    if (error != cudaSuccess)
        return error;
    LATENTDEM_LAUNCH(update_kernel<M>, dim3(static_cast<unsigned>(update.batch)), dim3(PaddedGrid<M>::threads),
                     PaddedGrid<M>::bytes, stream, update);
    return cudaGetLastError();
}

} // namespace

cudaError_t launch(const HqsKernelUpdate &update, cudaStream_t stream) {
    if (2 * update.size > update.side || update.iterations < 1)
        return cudaErrorInvalidValue;
    if (update.batch == 0)
        return cudaSuccess;
    switch (update.side) {
    case 32:
        return launch_padded<32>(update, stream);
    case 64:
        return launch_padded<64>(update, stream);
    case 128:
        return launch_padded<128>(update, stream);
    default:
        return cudaErrorInvalidValue;
    }
}

} // namespace latentdem::cuda
