#include "l0_deconvolution.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "columns.hpp"
#include "multiversion.hpp"
#include "parallel.hpp"
#include "plane_fft.hpp"

namespace latentdem {
namespace {

// Differences of a row to the next pixel, which wrap around, and to the row below.
LATENTDEM_MULTIVERSION void differences(const float *row, const float *below, std::int64_t width, float *across,
                                        float *down) {
    LATENTDEM_INDEPENDENT
    for (std::int64_t n = 0; n + 1 < width; ++n)
        across[n] = row[n] - row[n + 1];
    across[width - 1] = row[width - 1] - row[0];
    LATENTDEM_INDEPENDENT
    for (std::int64_t n = 0; n < width; ++n)
        down[n] = row[n] - below[n];
}

LATENTDEM_MULTIVERSION void add_squares(const float *across, const float *down, std::int64_t width, float *energy) {
    LATENTDEM_INDEPENDENT
    for (std::int64_t n = 0; n < width; ++n)
        energy[n] += across[n] * across[n] + down[n] * down[n];
}

LATENTDEM_MULTIVERSION void keep_strong(const float *energy, float least, std::int64_t width, float *across,
                                        float *down) {
    LATENTDEM_INDEPENDENT
    for (std::int64_t n = 0; n < width; ++n) {
        const bool weak = energy[n] < least;
        across[n] = weak ? 0.0f : across[n];
        down[n] = weak ? 0.0f : down[n];
    }
}

// The adjoint of the differences, one row of it; `above` are the differences down of the row before.
LATENTDEM_MULTIVERSION void divergence(const float *across, const float *down, const float *above, std::int64_t width,
                                       float *to) {
    to[0] = across[0] + down[0] - across[width - 1] - above[0];
    LATENTDEM_INDEPENDENT
    for (std::int64_t n = 1; n < width; ++n)
        to[n] = across[n] + down[n] - across[n - 1] - above[n];
}

// data = conj(otf) data, power = |otf|^2
LATENTDEM_MULTIVERSION void blur_back(const Row *__restrict otf, std::int64_t rows, Row *__restrict data) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            const float re = data[n].re[lane], im = data[n].im[lane];
            data[n].re[lane] = otf[n].re[lane] * re + otf[n].im[lane] * im;
            data[n].im[lane] = otf[n].re[lane] * im - otf[n].im[lane] * re;
        }
}

LATENTDEM_MULTIVERSION void powers(const Row *__restrict otf, std::int64_t rows, Values *__restrict power) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane)
            power[n].at[lane] = otf[n].re[lane] * otf[n].re[lane] + otf[n].im[lane] * otf[n].im[lane];
}

// gradients = scale (data + weight gradients) / (power + weight |D|^2); `down` and `across` add up to |D|^2.
LATENTDEM_MULTIVERSION void solve_block(const Row *__restrict data, const Values *__restrict power, const float *down,
                                        const float *across, float weight, float scale, std::int64_t rows,
                                        Row *__restrict gradients) {
    float columns[kLanes];
    for (int lane = 0; lane < kLanes; ++lane)
        columns[lane] = weight * across[lane];
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            const float gain = scale / (power[n].at[lane] + (columns[lane] + weight * down[n]));
            gradients[n].re[lane] = gain * (data[n].re[lane] + weight * gradients[n].re[lane]);
            gradients[n].im[lane] = gain * (data[n].im[lane] + weight * gradients[n].im[lane]);
        }
}

// Everything that is made for one sample, and the memory for it.
class Solver {
  public:
    Solver(const L0Deconvolution &task, const PlaneFft &plane)
        : task_(task), plane_(plane), power_(plane.spectrum_size()), data_(task.channels * plane.spectrum_size()),
          spectrum_(plane.spectrum_size()), down_(plane.stride), across_(plane.blocks * kLanes),
          divergence_(task.channels * task.height * task.width) {
        for (std::int64_t k = 0; k < task.height; ++k)
            down_[plane.columns.position[k]] = square_of_difference(k, task.height);
        // Lanes beyond the last column have no data, but must not divide by zero.
        for (std::int64_t u = 0; u < plane.blocks * kLanes; ++u)
            across_[u] = square_of_difference(std::min(u, task.width / 2), task.width);
    }

    void solve(std::int64_t sample, int threads) {
        sample_ = sample;
        threads_ = threads;
        prepare();
        const float *image = image_of(task_.y);
        float *const x = task_.x + (image - task_.y);
        const double penalty = task_.penalty[sample], growth = task_.growth[sample];
        for (double weight = task_.weight[sample]; weight < task_.last_weight[sample]; weight *= growth) {
            keep_edges(image, static_cast<float>(penalty / weight));
            for (std::int64_t c = 0; c < task_.channels; ++c)
                fit(c, static_cast<float>(weight), x + c * task_.height * task_.width);
            image = x;
        }
        if (image != x)
            std::memcpy(x, image, sizeof(float) * task_.channels * task_.height * task_.width);
    }

  private:
    const L0Deconvolution &task_;
    const PlaneFft &plane_;
    std::vector<Values> power_;
    std::vector<Row> data_;     // conj(otf) F y by channel
    std::vector<Row> spectrum_; // of one channel; the transfer function at first
    std::vector<float> down_, across_;
    std::vector<float> divergence_; // of the strong gradients, by channel
    std::int64_t sample_ = 0;
    int threads_ = 1;

    static float square_of_difference(std::int64_t frequency, std::int64_t length) {
        return static_cast<float>(2 - 2 * std::cos(2 * kPi * double(frequency) / double(length)));
    }

    const float *image_of(const float *images) const {
        return images + sample_ * task_.channels * task_.height * task_.width;
    }

    template <class Body>
    void each(std::int64_t count, const Body &body) const {
        PlaneFft::for_each(count, threads_, body);
    }

    void prepare() {
        const std::int64_t columns = task_.width / 2 + 1;
        const float *const otf = task_.otf + 2 * sample_ * task_.height * columns;
        Row *const transfer = spectrum_.data();
        each(plane_.blocks, [&](std::int64_t block) {
            const std::int64_t at = block * plane_.stride;
            load_columns(otf, columns, block, task_.height, plane_.columns.position.data(), transfer + at);
            powers(transfer + at, task_.height, &power_[at]);
        });
        for (std::int64_t c = 0; c < task_.channels; ++c) {
            Row *const data = &data_[c * plane_.spectrum_size()];
            const float *const y = image_of(task_.y) + c * task_.height * task_.width;
            plane_.forward(data, threads_, [&](std::int64_t i, Row *strip) { plane_.load_strip(y, i, strip); });
            each(plane_.blocks, [&](std::int64_t block) {
                const std::int64_t at = block * plane_.stride;
                blur_back(transfer + at, task_.height, data + at);
            });
        }
    }

    // The divergence of the gradients whose squared length, over all channels, is at least `least`.
    void keep_edges(const float *image, float least) {
        each(plane_.strips, [&](std::int64_t strip) {
            const std::int64_t width = task_.width, area = task_.height * width, count = task_.channels * width;
            const std::int64_t begin = strip * kLanes, end = std::min(begin + kLanes, task_.height);
            thread_local std::vector<float> memory;
            memory.resize(static_cast<std::size_t>(3 * count + width));
            float *across = memory.data(), *down = across + count, *above = down + count, *energy = above + count;
            for (std::int64_t row = begin - 1; row < end; ++row) {
                const std::int64_t here = row < 0 ? task_.height - 1 : row, next = (here + 1) % task_.height;
                std::swap(down, above);
                std::fill_n(energy, width, 0.0f);
                for (std::int64_t c = 0; c < task_.channels; ++c) {
                    differences(image + c * area + here * width, image + c * area + next * width, width,
                                across + c * width, down + c * width);
                    add_squares(across + c * width, down + c * width, width, energy);
                }
                for (std::int64_t c = 0; c < task_.channels; ++c) {
                    keep_strong(energy, least, width, across + c * width, down + c * width);
                    if (row >= begin)
                        divergence(across + c * width, down + c * width, above + c * width, width,
                                   &divergence_[c * area + row * width]);
                }
            }
        });
    }

    // The image of one channel that is closest to the data and, with `weight`, to the gradients that were kept.
    void fit(std::int64_t channel, float weight, float *x) {
        Row *const spectrum = spectrum_.data();
        const float *const from = &divergence_[channel * task_.height * task_.width];
        const Row *const data = &data_[channel * plane_.spectrum_size()];
        each(plane_.strips, [&](std::int64_t i) {
            Row *const strip = plane_.scratch_strip();
            plane_.load_strip(from, i, strip);
            plane_.strip_forward(strip, i, spectrum);
        });
        each(plane_.blocks, [&](std::int64_t block) {
            const std::int64_t at = block * plane_.stride;
            plane_.columns_forward(spectrum, block);
            if (block == 0) // the mean, zero but for rounding, which a large weight would enlarge
                spectrum[0].re[0] = spectrum[0].im[0] = 0;
            solve_block(data + at, &power_[at], down_.data(), &across_[block * kLanes], weight, 1 / plane_.round_trip,
                        task_.height, spectrum + at);
            plane_.columns_inverse(spectrum, block);
        });
        each(plane_.strips, [&](std::int64_t i) {
            Row *const strip = plane_.scratch_strip();
            plane_.strip_inverse(spectrum, i, strip);
            plane_.store_strip(strip, i, x);
        });
    }
};

} // namespace

void l0_deconvolution(const L0Deconvolution &task) {
    const PlaneFft plane(task.height, task.width);
    solve_samples(task.batch, task.threads, Solver(task, plane));
}

} // namespace latentdem
