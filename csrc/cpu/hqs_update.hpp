// Updates of blur kernels by half-quadratic splitting (reference.hqs_kernel_update), any number of them in one call.
#pragma once

#include <cstdint>

namespace latentdem {

struct HqsUpdate {
    const float *kernel, *data_term; // batch x size x size
    const float *filter;             // batch x side x (side / 2 + 1)
    float *updated;                  // batch x size x size
    std::int64_t batch, size, side;  // side even, at least 2 size
    std::int64_t iterations;
    bool project;
    int threads;
};

void hqs_update(const HqsUpdate &task);

} // namespace latentdem
