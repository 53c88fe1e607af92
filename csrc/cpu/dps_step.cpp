// One step of diffusion posterior sampling on contiguous float32 arrays (reference.dps_step).

#include <algorithm>
#include <cmath>

#include "bindings.hpp"
#include "multiversion.hpp"
#include "parallel.hpp"

namespace latentdem {
namespace {

constexpr std::int64_t kBlock = 1024;  // items handled while they are in the first-level cache
constexpr std::int64_t kGrain = 16384; // items worth a thread

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

} // namespace

static void bind(pybind11::module_ &module) {
    namespace py = pybind11;
    module.def(
        "dps_step",
        [](Address z_t, Address eps, Address eps_uncond, Address noise, Address gradient, Address abar_t,
           Address abar_prev, Address step_size, Address z_prev, Address z0, std::int64_t batch, std::int64_t numel,
           double guidance, double eta, int threads) {
            dps_step({pointer<const float>(z_t), pointer<const float>(eps), pointer<const float>(eps_uncond),
                      pointer<const float>(noise), pointer<const float>(gradient), pointer<const double>(abar_t),
                      pointer<const double>(abar_prev), pointer<const double>(step_size), pointer<float>(z_prev),
                      pointer<float>(z0), batch, numel, guidance, eta, threads});
        },
        py::kw_only(), py::arg("z_t"), py::arg("eps"), py::arg("eps_uncond"), py::arg("noise"), py::arg("gradient"),
        py::arg("abar_t"), py::arg("abar_prev"), py::arg("step_size"), py::arg("z_prev"), py::arg("z0"),
        py::arg("batch"), py::arg("numel"), py::arg("guidance"), py::arg("eta"), py::arg("threads"),
        py::call_guard<py::gil_scoped_release>());
}

static const Binding binding(bind);

} // namespace latentdem
