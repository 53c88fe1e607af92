// Re-noising of a corrected clean latent on contiguous float32 arrays (reference.renoise).
#pragma once

#include <cstdint>

namespace latentdem {

struct Renoise {
    const float *z_t, *z0, *noise;            // batch x numel
    const double *abar_t, *abar_prev, *fresh; // batch
    float *z_prev;                            // batch x numel, may not overlap the inputs
    std::int64_t batch, numel;
    int threads; // at most this many
};

void renoise(const Renoise &task);

} // namespace latentdem
