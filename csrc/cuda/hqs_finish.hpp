// The end of a kernel update whose transforms ran elsewhere, and the projection of a kernel alone. All arrays are
// contiguous.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace latentdem::cuda {

struct HqsFinish {
    const float *response;  // batch x side x side, of which the corner size x size is read
    const float *data_term; // batch x size x size or null: nothing is added
    float *updated;         // batch x size x size, may not overlap the inputs
    std::int64_t batch;
    int size, side;
    bool project; // clip to non-negative values and divide by the sum
};

cudaError_t launch(const HqsFinish &finish, cudaStream_t stream);

} // namespace latentdem::cuda
