// updated = data_term + crop response, clipped and normalised; one block for each image.
#include "hqs_finish.hpp"

#include "block_sum.cuh"
#include "launch.cuh"
#include "project.cuh"

namespace latentdem::cuda {
namespace {

constexpr int kThreads = 1024;

__global__ void __launch_bounds__(kThreads) finish_kernel(HqsFinish f) {
    __shared__ float sums[kThreads / 32];
    const std::int64_t image = blockIdx.x;
    const int thread = static_cast<int>(threadIdx.x), count = f.size * f.size;
    const std::int64_t side = f.side; // its square may be above 2^31
    const float *const response = f.response + image * side * side;
    const float *const data_term = f.data_term ? f.data_term + image * count : nullptr;
    float *const updated = f.updated + image * count;
    float sum = 0.0f;
    for (int i = thread; i < count; i += kThreads) {
        float value = response[i / f.size * side + i % f.size];
        if (data_term)
            value += data_term[i];
        if (f.project)
            value = clip(value);
        updated[i] = value;
        sum += value;
    }
    if (!f.project)
        return;
    sum = block_sum<kThreads>(sum, sums);
    for (int i = thread; i < count; i += kThreads)
        updated[i] = normalised(updated[i], sum, f.size);
}

} // namespace

cudaError_t launch(const HqsFinish &finish, cudaStream_t stream) {
    if (finish.batch == 0)
        return cudaSuccess;
    LATENTDEM_LAUNCH(finish_kernel, dim3(static_cast<unsigned>(finish.batch)), dim3(kThreads), 0, stream, finish);
    return cudaGetLastError();
}

} // namespace latentdem::cuda
