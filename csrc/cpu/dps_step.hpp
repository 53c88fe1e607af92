// One step of diffusion posterior sampling on contiguous float32 arrays (reference.dps_step).
#pragma once

#include <cstdint>

namespace latentdem {

struct DpsStep {
    const float *z_t, *eps;           // batch x numel
    const float *eps_uncond;          // batch x numel or null: no guidance
    const float *noise;               // batch x numel or null: no noise is added
    const float *gradient;            // batch x numel or null: no gradient step
    const double *abar_t, *abar_prev; // batch
    const double *step_size;          // batch, read with gradient only
    float *z_prev, *z0;               // batch x numel, may not overlap the inputs
    std::int64_t batch, numel;
    double guidance, eta;
    int threads; // at most this many
};

void dps_step(const DpsStep &step);

} // namespace latentdem
