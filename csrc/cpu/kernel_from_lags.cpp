#include "kernel_from_lags.hpp"

#include <algorithm>
#include <vector>

#include "conjugate_gradients.hpp"
#include "kernel_window.hpp"
#include "multiversion.hpp"
#include "parallel.hpp"
#include "plane_fft.hpp"

namespace latentdem {
namespace {

LATENTDEM_MULTIVERSION void real_parts(const Row *spectrum, float scale, std::int64_t rows, Values *to) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane)
            to[n].at[lane] = scale * spectrum[n].re[lane];
}

LATENTDEM_MULTIVERSION void multiply(const Values *gain, std::int64_t rows, Row *spectrum) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            spectrum[n].re[lane] *= gain[n].at[lane];
            spectrum[n].im[lane] *= gain[n].at[lane];
        }
}

LATENTDEM_MULTIVERSION void clamp(std::int64_t count, float *values) {
    for (std::int64_t i = 0; i < count; ++i)
        values[i] = values[i] < 0 ? 0.0f : values[i];
}

LATENTDEM_MULTIVERSION bool any_negative(const float *values, std::int64_t count) {
    int found = 0;
    for (std::int64_t i = 0; i < count; ++i)
        found |= values[i] < 0;
    return found;
}

// The gradient without what would push values of zero below it.
LATENTDEM_MULTIVERSION void reduce(const float *kernel, const float *gradient, std::int64_t count, float *reduced) {
    LATENTDEM_INDEPENDENT
    for (std::int64_t i = 0; i < count; ++i)
        reduced[i] = (kernel[i] > 0) | (gradient[i] < 0) ? gradient[i] : 0.0f;
}

// Everything that is made for one sample, and the memory for it.
class LagSolver {
  public:
    LagSolver(const KernelFromLags &task, const PlaneFft &plane)
        : task_(task), plane_(plane), kernels_{plane, task.size, 0}, lags_{plane, 2 * task.size - 1, task.size - 1},
          count_(task.size * task.size), gain_(plane.spectrum_size()), spectrum_(plane.spectrum_size()),
          gradient_(count_), reduced_(count_), direction_(count_), image_(count_) {}

    void solve(std::int64_t sample, int threads) {
        threads_ = threads;
        weight_ = static_cast<float>(task_.weight[sample]);
        const std::int64_t side = 2 * task_.size - 1;
        lags_.forward(task_.lags + sample * side * side, threads, spectrum_.data());
        real_parts(spectrum_.data(), 1 / (2 * plane_.round_trip), plane_.spectrum_size(), gain_.data());

        const float *const cross = task_.cross + sample * count_;
        float *const kernel = task_.kernel + sample * count_;
        std::copy_n(task_.start + sample * count_, count_, kernel);
        if (task_.nonnegative)
            clamp(count_, kernel);
        restart(kernel, cross);
        const double allowed = task_.tolerance * task_.tolerance * inner_product(cross, cross, count_);
        for (std::int64_t done = 0; done < task_.iterations; ++done) {
            if (!(inner_product(reduced_.data(), reduced_.data(), count_) > allowed))
                break;
            apply(direction_.data(), image_.data());
            const double curvature = inner_product(direction_.data(), image_.data(), count_);
            if (!(curvature > 0))
                break;
            const float step =
                static_cast<float>(inner_product(gradient_.data(), direction_.data(), count_) / curvature);
            combine(kernel, -step, direction_.data(), count_, kernel);
            if (task_.nonnegative && any_negative(kernel, count_)) { // other values are at zero: other directions
                clamp(count_, kernel);
                restart(kernel, cross);
                continue;
            }
            combine(gradient_.data(), -step, image_.data(), count_, gradient_.data());
            reduce(kernel);
            const double along = inner_product(reduced_.data(), image_.data(), count_);
            combine(reduced_.data(), static_cast<float>(-along / curvature), direction_.data(), count_,
                    direction_.data());
        }
    }

  private:
    const KernelFromLags &task_;
    const PlaneFft &plane_;
    const KernelWindow kernels_, lags_;
    std::int64_t count_;
    std::vector<Values> gain_; // eigenvalues of A on the grid, with the scale of a round trip
    std::vector<Row> spectrum_;
    std::vector<float> gradient_, reduced_, direction_, image_;
    float weight_ = 0;
    int threads_ = 1;

    // image = (A + a) values
    void apply(const float *values, float *image) {
        kernels_.forward(values, threads_, spectrum_.data());
        multiply(gain_.data(), plane_.spectrum_size(), spectrum_.data());
        kernels_.inverse(spectrum_.data(), 1, threads_, image);
        combine(image, weight_, values, count_, image);
    }

    void restart(const float *kernel, const float *cross) {
        apply(kernel, gradient_.data());
        combine(gradient_.data(), -1, cross, count_, gradient_.data());
        reduce(kernel);
        direction_ = reduced_;
    }

    void reduce(const float *kernel) {
        if (task_.nonnegative)
            latentdem::reduce(kernel, gradient_.data(), count_, reduced_.data());
        else
            reduced_ = gradient_;
    }
};

} // namespace

void kernel_from_lags(const KernelFromLags &task) {
    const PlaneFft plane(task.side, task.side);
    solve_samples(task.batch, task.threads, LagSolver(task, plane));
}

} // namespace latentdem
