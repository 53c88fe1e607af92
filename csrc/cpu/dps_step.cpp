#include "dps_step.hpp"

#include <algorithm>
#include <cmath>

#include "multiversion.hpp"
#include "parallel.hpp"

namespace latentdem {
namespace {

constexpr std::int64_t kBlock = 1024;  // items handled while they are in the first-level cache
constexpr std::int64_t kGrain = 16384; // items worth a thread

// The factors of one sample.
struct Scales {
    float noise_t, rsqrt_t;        // sqrt(1 - abar_t), 1 / sqrt(abar_t)
    float signal_prev, noise_prev; // sqrt(abar_prev), sqrt(1 - abar_prev - s^2)
    float spread, step_size, guidance;
};

Scales scales_of(const DpsStep &step, std::int64_t sample) {
    const double now = step.abar_t[sample], prev = step.abar_prev[sample];
    const double spread = step.eta * std::sqrt((1 - prev) / (1 - now) * (1 - now / prev));
    const auto f = [](double value) { return static_cast<float>(value); };
    return {f(std::sqrt(1 - now)),
            f(1 / std::sqrt(now)),
            f(std::sqrt(prev)),
            f(std::sqrt(std::max(1 - prev - spread * spread, 0.0))),
            f(spread),
            step.gradient ? f(step.step_size[sample]) : 0.0f,
            f(step.guidance)};
}

// At most kBlock items of one sample. The optional terms are passes of their own: they stay in cache.
LATENTDEM_MULTIVERSION void run_block(const DpsStep &step, const Scales &c, std::int64_t begin, std::int64_t count) {
    const float *const z_t = step.z_t + begin;
    const float *eps = step.eps + begin;
    float *const __restrict z_prev = step.z_prev + begin;
    float *const __restrict z0 = step.z0 + begin;
    float guided[kBlock];
    if (step.eps_uncond) {
        const float *const uncond = step.eps_uncond + begin;
        for (std::int64_t i = 0; i < count; ++i)
            guided[i] = uncond[i] + c.guidance * (eps[i] - uncond[i]);
        eps = guided;
    }
    for (std::int64_t i = 0; i < count; ++i) {
        const float clean = (z_t[i] - c.noise_t * eps[i]) * c.rsqrt_t;
        z0[i] = clean;
        z_prev[i] = c.signal_prev * clean + c.noise_prev * eps[i];
    }
    if (step.noise) {
        const float *const noise = step.noise + begin;
        for (std::int64_t i = 0; i < count; ++i)
            z_prev[i] += c.spread * noise[i];
    }
    if (step.gradient) {
        const float *const gradient = step.gradient + begin;
        for (std::int64_t i = 0; i < count; ++i)
            z_prev[i] -= c.step_size * gradient[i];
    }
}

} // namespace

void dps_step(const DpsStep &step) {
    parallel_for(step.batch * step.numel, kGrain, step.threads, [&step](std::int64_t begin, std::int64_t end) {
        while (begin < end) {
            const std::int64_t sample = begin / step.numel;
            const std::int64_t stop = std::min(end, (sample + 1) * step.numel);
            const Scales scales = scales_of(step, sample);
            for (; begin < stop; begin += kBlock)
                run_block(step, scales, begin, std::min(kBlock, stop - begin));
            begin = stop;
        }
    });
}

} // namespace latentdem
