#include "masked_kernel.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "conjugate_gradients.hpp"
#include "kernel_window.hpp"
#include "multiversion.hpp"
#include "parallel.hpp"
#include "plane_fft.hpp"

namespace latentdem {
namespace {

// L L^T x = b, in place; L is lower triangular, `count` values a row.
LATENTDEM_MULTIVERSION void solve_factored(const float *factor, std::int64_t count, float *values) {
    for (std::int64_t i = 0; i < count; ++i) {
        const float *const row = factor + i * count;
        float sums[kLanes] = {};
        std::int64_t j = 0;
        for (; j + kLanes <= i; j += kLanes)
            for (int lane = 0; lane < kLanes; ++lane)
                sums[lane] += row[j + lane] * values[j + lane];
        float sum = 0;
        for (; j < i; ++j)
            sum += row[j] * values[j];
        for (const float part : sums)
            sum += part;
        values[i] = (values[i] - sum) / row[i];
    }
    for (std::int64_t i = count - 1; i >= 0; --i) {
        const float *const row = factor + i * count;
        const float value = values[i] /= row[i];
        LATENTDEM_INDEPENDENT
        for (std::int64_t j = 0; j < i; ++j)
            values[j] -= row[j] * value;
    }
}

LATENTDEM_MULTIVERSION void product(const Row *a, const Row *b, std::int64_t rows, Row *to) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            to[n].re[lane] = a[n].re[lane] * b[n].re[lane] - a[n].im[lane] * b[n].im[lane];
            to[n].im[lane] = a[n].re[lane] * b[n].im[lane] + a[n].im[lane] * b[n].re[lane];
        }
}

// to += conj(a) b
LATENTDEM_MULTIVERSION void add_correlation(const Row *a, const Row *b, std::int64_t rows, Row *to) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            to[n].re[lane] += a[n].re[lane] * b[n].re[lane] + a[n].im[lane] * b[n].im[lane];
            to[n].im[lane] += a[n].re[lane] * b[n].im[lane] - a[n].im[lane] * b[n].re[lane];
        }
}

LATENTDEM_MULTIVERSION void add_power(const Row *a, std::int64_t rows, Values *to) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane)
            to[n].at[lane] += a[n].re[lane] * a[n].re[lane] + a[n].im[lane] * a[n].im[lane];
}

LATENTDEM_MULTIVERSION void divide(const Values *power, float scale, float weight, std::int64_t rows, Row *values) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            const float gain = 1 / (scale * power[n].at[lane] + weight);
            values[n].re[lane] *= gain;
            values[n].im[lane] *= gain;
        }
}

LATENTDEM_MULTIVERSION void multiply(const float *factor, std::int64_t count, float *values) {
    LATENTDEM_INDEPENDENT
    for (std::int64_t i = 0; i < count; ++i)
        values[i] *= factor[i];
}

class KernelSolver {
  public:
    KernelSolver(const MaskedKernel &task, const PlaneFft &plane)
        : task_(task), plane_(plane), window_{plane, task.size, task.size / 2}, x_(task.images * plane.spectrum_size()),
          otf_(plane.spectrum_size()), work_(plane.spectrum_size()), sum_(plane.spectrum_size()),
          mask_(plane.strips * plane.pairs) {
        gradients_.resize(task.size * task.size);
        if (!task.factor)
            power_.resize(static_cast<std::size_t>(plane.spectrum_size()));
    }

    void solve(std::int64_t sample, int threads) {
        sample_ = sample;
        threads_ = threads;
        transformed_ = false;
        const std::int64_t count = task_.size * task_.size;
        float *const solution = task_.solution + sample * count, *const residual = task_.residual + sample * count;
        std::copy_n(task_.right + sample * count, count, residual);
        gradients_.solve(
            solution, residual, task_.allowed, task_.iterations,
            [this](const float *kernel, float *image) { apply(kernel, image); },
            [this](const float *values, float *conditioned) { condition(values, conditioned); });
    }

  private:
    const MaskedKernel &task_;
    const PlaneFft &plane_;
    const KernelWindow window_;
    std::vector<Row> x_; // spectra of the images
    std::vector<Row> otf_, work_, sum_;
    std::vector<Row> mask_; // in strips
    std::vector<Values> power_;
    ConjugateGradients gradients_;
    std::int64_t sample_ = 0;
    int threads_ = 1;
    bool transformed_ = false; // the images of this sample

    float weight() const { return static_cast<float>(task_.weight[sample_]); }

    void transform() {
        if (transformed_)
            return;
        transformed_ = true;
        const std::int64_t points = task_.height * task_.width;
        const float *const mask = task_.mask + (task_.masks == 1 ? 0 : sample_ * points);
        for (std::int64_t strip = 0; strip < plane_.strips; ++strip)
            plane_.load_strip(mask, strip, &mask_[strip * plane_.pairs]);
        std::fill(power_.begin(), power_.end(), Values{});
        for (std::int64_t c = 0; c < task_.images; ++c) {
            const float *const image = task_.x + (sample_ * task_.images + c) * points;
            plane_.forward(&x_[c * plane_.spectrum_size()], threads_,
                           [&](std::int64_t i, Row *strip) { plane_.load_strip(image, i, strip); });
            if (power_.empty())
                continue;
            plane_.forward(work_.data(), threads_, [&](std::int64_t i, Row *strip) {
                plane_.load_strip(image, i, strip);
                float *const values = reinterpret_cast<float *>(strip);
                const float *const share = reinterpret_cast<const float *>(&mask_[i * plane_.pairs]);
                for (std::int64_t n = 0; n < 2 * plane_.pairs * kLanes; ++n)
                    values[n] *= std::sqrt(share[n]);
            });
            add_power(work_.data(), plane_.spectrum_size(), power_.data());
        }
    }

    void apply(const float *kernel, float *image) {
        transform();
        const std::int64_t size = plane_.spectrum_size(), stride = plane_.stride, pairs = plane_.pairs;
        Row *const otf = otf_.data(), *const work = work_.data(), *const sum = sum_.data();
        window_.forward(kernel, threads_, otf);
        std::fill(sum_.begin(), sum_.end(), Row{});
        for (std::int64_t c = 0; c < task_.images; ++c) {
            const Row *const x = &x_[c * size];
            PlaneFft::for_each(plane_.blocks, threads_, [&](std::int64_t block) {
                product(otf + block * stride, x + block * stride, stride, work + block * stride);
                plane_.columns_inverse(work, block);
            });
            PlaneFft::for_each(plane_.strips, threads_, [&](std::int64_t index) {
                Row *const strip = plane_.scratch_strip();
                plane_.strip_inverse(work, index, strip);
                multiply(mask_[index * pairs].re, 2 * pairs * kLanes, reinterpret_cast<float *>(strip));
                plane_.strip_forward(strip, index, work);
            });
            PlaneFft::for_each(plane_.blocks, threads_, [&](std::int64_t block) {
                plane_.columns_forward(work, block);
                add_correlation(x + block * stride, work + block * stride, stride, sum + block * stride);
            });
        }
        // Products of two spectra have a factor of 2 too many.
        window_.inverse(sum, 1 / (4 * plane_.round_trip * plane_.round_trip), threads_, image);
        combine(image, weight(), kernel, task_.size * task_.size, image);
    }

    void condition(const float *residual, float *conditioned) {
        const std::int64_t count = task_.size * task_.size;
        if (task_.factor) {
            std::copy_n(residual, count, conditioned);
            return solve_factored(task_.factor + sample_ * count * count, count, conditioned);
        }
        transform();
        window_.forward(residual, threads_, otf_.data());
        divide(power_.data(), 0.25f, weight(), plane_.spectrum_size(), otf_.data());
        window_.inverse(otf_.data(), 1 / plane_.round_trip, threads_, conditioned);
    }
};

} // namespace

void masked_kernel_solve(const MaskedKernel &task) {
    const PlaneFft plane(task.height, task.width);
    solve_samples(task.batch, task.threads, KernelSolver(task, plane));
}

} // namespace latentdem
