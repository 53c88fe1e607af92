#include "renoise.hpp"

#include <algorithm>
#include <cmath>

#include "multiversion.hpp"
#include "parallel.hpp"

namespace latentdem {
namespace {

constexpr std::int64_t kGrain = 16384; // items worth a thread

// The factors of one sample.
struct Scales {
    float signal_t, rsqrt_noise_t;    // sqrt(abar_t), 1 / sqrt(1 - abar_t)
    float signal_prev, kept, renewed; // sqrt(abar_prev), and of the two parts of the noise
};

Scales scales_of(const Renoise &task, std::int64_t sample) {
    const double now = task.abar_t[sample], prev = task.abar_prev[sample], fresh = task.fresh[sample];
    const auto f = [](double value) { return static_cast<float>(value); };
    return {f(std::sqrt(now)), f(1 / std::sqrt(1 - now)), f(std::sqrt(prev)),
            f(std::sqrt(1 - prev) * std::sqrt(1 - fresh)), f(std::sqrt(1 - prev) * std::sqrt(fresh))};
}

LATENTDEM_MULTIVERSION void run(const Renoise &task, const Scales &s, std::int64_t begin, std::int64_t end) {
    const float *const z_t = task.z_t, *const z0 = task.z0, *const noise = task.noise;
    float *const __restrict z_prev = task.z_prev;
    for (std::int64_t i = begin; i < end; ++i) {
        const float direction = (z_t[i] - s.signal_t * z0[i]) * s.rsqrt_noise_t;
        z_prev[i] = s.signal_prev * z0[i] + s.kept * direction + s.renewed * noise[i];
    }
}

} // namespace

void renoise(const Renoise &task) {
    parallel_for(task.batch * task.numel, kGrain, task.threads, [&task](std::int64_t begin, std::int64_t end) {
        while (begin < end) {
            const std::int64_t sample = begin / task.numel, stop = std::min(end, (sample + 1) * task.numel);
            run(task, scales_of(task, sample), begin, stop);
            begin = stop;
        }
    });
}

} // namespace latentdem
