#include "gradient_lags.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "columns.hpp"
#include "kernel_window.hpp"
#include "multiversion.hpp"
#include "parallel.hpp"
#include "plane_fft.hpp"

namespace latentdem {
namespace {

// One row of the masked differences to the next pixel, which wrap around, and to the row below.
LATENTDEM_MULTIVERSION void masked_differences(const float *row, const float *below, const float *mask,
                                               std::int64_t width, float *across, float *down) {
    LATENTDEM_INDEPENDENT
    for (std::int64_t n = 0; n + 1 < width; ++n)
        across[n] = mask[n] * (row[n] - row[n + 1]);
    across[width - 1] = mask[width - 1] * (row[width - 1] - row[0]);
    LATENTDEM_INDEPENDENT
    for (std::int64_t n = 0; n < width; ++n)
        down[n] = mask[n] * (row[n] - below[n]);
}

// Spectra a and b of the differences across and down: power += |a|^2 + |b|^2, cross += conj(a conj(t_a) + b conj(t_b))
// y with the transfer functions t_a, the same in all rows, and t_b, the same in all lanes.
LATENTDEM_MULTIVERSION void add_products(const Row *__restrict a, const Row *__restrict b, const Row *__restrict y,
                                         const Row &t_a, const float *t_b, std::int64_t rows, Values *__restrict power,
                                         Row *__restrict cross) {
    for (std::int64_t n = 0; n < rows; ++n) {
        const float down_re = t_b[2 * n], down_im = t_b[2 * n + 1];
        for (int lane = 0; lane < kLanes; ++lane) {
            const float a_re = a[n].re[lane], a_im = a[n].im[lane], b_re = b[n].re[lane], b_im = b[n].im[lane];
            power[n].at[lane] += a_re * a_re + a_im * a_im + b_re * b_re + b_im * b_im;
            const float across_re = t_a.re[lane], across_im = t_a.im[lane];
            const float re = a_re * across_re + a_im * across_im + b_re * down_re + b_im * down_im;
            const float im = a_im * across_re - a_re * across_im + b_im * down_re - b_re * down_im;
            cross[n].re[lane] += re * y[n].re[lane] + im * y[n].im[lane];
            cross[n].im[lane] += re * y[n].im[lane] - im * y[n].re[lane];
        }
    }
}

// Both times 1 / (1 + whitening (|t_a|^2 + |t_b|^2)).
LATENTDEM_MULTIVERSION void whiten(const Values *__restrict power, const Row &t_a, const float *t_b, float whitening,
                                   std::int64_t rows, Row *__restrict lags, Row *__restrict cross) {
    float across[kLanes];
    for (int lane = 0; lane < kLanes; ++lane)
        across[lane] = t_a.re[lane] * t_a.re[lane] + t_a.im[lane] * t_a.im[lane];
    for (std::int64_t n = 0; n < rows; ++n) {
        const float down = t_b[2 * n] * t_b[2 * n] + t_b[2 * n + 1] * t_b[2 * n + 1];
        for (int lane = 0; lane < kLanes; ++lane) {
            const float gain = 1 / (1 + whitening * (across[lane] + down));
            lags[n].re[lane] = gain * power[n].at[lane];
            lags[n].im[lane] = 0;
            cross[n].re[lane] *= gain;
            cross[n].im[lane] *= gain;
        }
    }
}

// Everything that is made for one sample, and the memory for it.
class Correlator {
  public:
    Correlator(const GradientLags &task, const PlaneFft &plane)
        : task_(task), plane_(plane), lags_{plane, 2 * task.size - 1, task.size - 1},
          cross_{plane, task.size, task.size / 2}, across_(plane.spectrum_size()), down_(plane.spectrum_size()),
          other_(plane.spectrum_size()), products_(plane.spectrum_size()), power_(plane.spectrum_size()),
          across_transfer_(plane.blocks), down_transfer_(2 * plane.stride) {
        for (std::int64_t u = 0; u < plane.blocks * kLanes; ++u) {
            const double angle = 2 * kPi * double(u) / double(task.width);
            across_transfer_[u / kLanes].re[u % kLanes] = static_cast<float>(1 - std::cos(angle));
            across_transfer_[u / kLanes].im[u % kLanes] = static_cast<float>(-std::sin(angle));
        }
        for (std::int64_t k = 0; k < task.height; ++k) {
            const double angle = 2 * kPi * double(k) / double(task.height);
            const std::int64_t place = plane.columns.position[k];
            down_transfer_[2 * place] = static_cast<float>(1 - std::cos(angle));
            down_transfer_[2 * place + 1] = static_cast<float>(-std::sin(angle));
        }
    }

    void solve(std::int64_t sample, int threads) {
        std::fill(power_.begin(), power_.end(), Values{});
        std::fill(products_.begin(), products_.end(), Row{});
        const float *const mask = task_.mask + (task_.masks == 1 ? 0 : sample * task_.height * task_.width);
        for (std::int64_t c = 0; c < task_.channels; ++c) {
            const std::int64_t image = sample * task_.channels + c;
            add_channel(task_.x + image * task_.height * task_.width, mask,
                        task_.spectrum + 2 * image * task_.height * (task_.width / 2 + 1), threads);
        }
        PlaneFft::for_each(plane_.blocks, threads, [&](std::int64_t block) {
            const std::int64_t at = block * plane_.stride;
            whiten(&power_[at], across_transfer_[block], down_transfer_.data(),
                   static_cast<float>(task_.whitening[sample]), plane_.height, &across_[at], &products_[at]);
        });
        // The spectra of the differences are twice the transforms, that of the other image is not.
        const std::int64_t side = 2 * task_.size - 1;
        lags_.inverse(across_.data(), 1 / (2 * plane_.round_trip), threads, task_.lags + sample * side * side);
        cross_.inverse(products_.data(), 1 / plane_.round_trip, threads,
                       task_.cross + sample * task_.size * task_.size);
    }

  private:
    const GradientLags &task_;
    const PlaneFft &plane_;
    const KernelWindow lags_, cross_;
    std::vector<Row> across_, down_; // spectra of the differences of one channel
    std::vector<Row> other_, products_;
    std::vector<Values> power_;
    std::vector<Row> across_transfer_; // by block
    std::vector<float> down_transfer_; // complex

    void add_channel(const float *image, const float *mask, const float *spectrum, int threads) {
        PlaneFft::for_each(plane_.strips, threads, [&](std::int64_t index) {
            const std::int64_t width = plane_.width, first = index * kLanes;
            const std::int64_t count = std::min<std::int64_t>(kLanes, plane_.height - first);
            thread_local std::vector<float> memory;
            memory.resize(static_cast<std::size_t>(2 * kLanes * width));
            float *const across = memory.data(), *const down = across + kLanes * width;
            for (std::int64_t n = 0; n < count; ++n) {
                const float *const row = image + (first + n) * width;
                const float *const below = image + (first + n + 1) % plane_.height * width;
                masked_differences(row, below, mask + (first + n) * width, width, across + n * width, down + n * width);
            }
            Row *const strip = plane_.scratch_strip();
            plane_.load_rows(across, count, strip);
            plane_.strip_forward(strip, index, across_.data());
            plane_.load_rows(down, count, strip);
            plane_.strip_forward(strip, index, down_.data());
        });
        PlaneFft::for_each(plane_.blocks, threads, [&](std::int64_t block) {
            const std::int64_t at = block * plane_.stride;
            plane_.columns_forward(across_.data(), block);
            plane_.columns_forward(down_.data(), block);
            load_columns(spectrum, plane_.width / 2 + 1, block, plane_.height, plane_.columns.position.data(),
                         &other_[at]);
            add_products(&across_[at], &down_[at], &other_[at], across_transfer_[block], down_transfer_.data(),
                         plane_.height, &power_[at], &products_[at]);
        });
    }
};

} // namespace

void gradient_lags(const GradientLags &task) {
    const PlaneFft plane(task.height, task.width);
    solve_samples(task.batch, task.threads, Correlator(task, plane));
}

} // namespace latentdem
