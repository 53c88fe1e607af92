// The unknowns are the values of k * x at the pixels that were not measured, the gaps (gaps.hpp).
#include "masked_proximal.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "columns.hpp"
#include "conjugate_gradients.hpp"
#include "frame_preconditioner.hpp"
#include "gaps.hpp"
#include "multiversion.hpp"
#include "parallel.hpp"
#include "plane_fft.hpp"

namespace latentdem {
namespace {

// y <- scale_y y + scale otf x
LATENTDEM_MULTIVERSION void add_product(Row *__restrict y, float scale_y, const Row *__restrict otf, float scale,
                                        const Row *__restrict x, std::int64_t rows) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            const float re = scale * otf[n].re[lane], im = scale * otf[n].im[lane];
            const float x_re = x[n].re[lane], x_im = x[n].im[lane];
            y[n].re[lane] = scale_y * y[n].re[lane] + re * x_re - im * x_im;
            y[n].im[lane] = scale_y * y[n].im[lane] + re * x_im + im * x_re;
        }
}

// gain = scale rho / (|otf|^2 + rho), the eigenvalues of T
LATENTDEM_MULTIVERSION void eigenvalues(const Row *otf, float rho, float scale, std::int64_t rows, Values *gain) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            const float re = otf[n].re[lane], im = otf[n].im[lane];
            gain[n].at[lane] = scale * rho / (re * re + im * im + rho);
        }
}

LATENTDEM_MULTIVERSION void multiply(const Row *from, const Values *gain, std::int64_t rows, Row *to) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            to[n].re[lane] = gain[n].at[lane] * from[n].re[lane];
            to[n].im[lane] = gain[n].at[lane] * from[n].im[lane];
        }
}

// to = scale conj(otf) / (|otf|^2 + rho) (to + w): the correction of the image.
LATENTDEM_MULTIVERSION void correct(const Row *otf, float rho, float scale, const Row *w, std::int64_t rows, Row *to) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            const float re = otf[n].re[lane], im = otf[n].im[lane], gain = scale / (re * re + im * im + rho);
            const float w_re = to[n].re[lane] + w[n].re[lane], w_im = to[n].im[lane] + w[n].im[lane];
            to[n].re[lane] = gain * (re * w_re + im * w_im);
            to[n].im[lane] = gain * (re * w_im - im * w_re);
        }
}

// Adds |w|^2 and |otf / (|otf|^2 + rho) w|^2 of every column.
LATENTDEM_MULTIVERSION void norms(const Row *otf, float rho, const Row *w, std::int64_t rows, double *plain,
                                  double *corrected) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            const float re = otf[n].re[lane], im = otf[n].im[lane], power = re * re + im * im;
            const float square = w[n].re[lane] * w[n].re[lane] + w[n].im[lane] * w[n].im[lane];
            plain[lane] += square;
            corrected[lane] += power / ((power + rho) * (power + rho)) * square;
        }
}

// Everything that is made for one sample, and the memory for it.
class Solver {
  public:
    Solver(const MaskedProximal &task, const PlaneFft &plane, const std::vector<Gaps> &gaps)
        : task_(task), plane_(plane), gaps_(gaps), otf_(plane.spectrum_size()), eigenvalues_(plane.spectrum_size()),
          spectrum_(plane.spectrum_size()), missing_(task.channels * plane.spectrum_size()),
          preconditioner_(task.height, task.width, task.band_rows, task.row_count, task.band_columns,
                          task.column_count) {}

    void solve(std::int64_t sample, int threads) {
        threads_ = threads;
        sample_ = sample;
        prepare();
        gradients_.solve(
            solution_.data(), residual_.data(), allowed_, task_.iterations,
            [this](const float *vector, float *image) { apply(vector, image); },
            [this](const float *residual, float *solved) { preconditioner_.solve(residual, task_.channels, solved); });
        finish();
    }

  private:
    const MaskedProximal &task_;
    const PlaneFft &plane_;
    const std::vector<Gaps> &gaps_;
    const Gaps *gap_ = nullptr; // of this sample
    std::vector<Row> otf_;
    std::vector<Values> eigenvalues_; // with the scale of a round trip
    std::vector<Row> spectrum_;       // of one channel
    std::vector<Row> missing_;        // w = y, filled, - k * x0 by channel
    FramePreconditioner preconditioner_;
    ConjugateGradients gradients_;
    std::vector<float> start_, solution_, residual_;
    double allowed_ = 0;
    std::int64_t sample_ = 0;
    int threads_ = 1;

    float rho() const { return static_cast<float>(task_.rho[sample_]); }
    std::int64_t values() const { return task_.channels * gap_->padded; }
    const float *image_of(const float *images, std::int64_t channel) const {
        return images + (sample_ * task_.channels + channel) * task_.height * task_.width;
    }

    template <class Fill>
    void forward(Row *spectrum, const Fill &fill) const {
        plane_.forward(spectrum, threads_, fill);
    }

    template <class Take>
    void inverse(Row *spectrum, const Take &take) const {
        plane_.inverse(spectrum, threads_, take);
    }

    template <class Body>
    void each(std::int64_t count, const Body &body) const {
        PlaneFft::for_each(count, threads_, body);
    }

    void prepare() {
        const std::int64_t size = plane_.spectrum_size(), columns = task_.width / 2 + 1;
        const float *const otf = task_.otf + 2 * sample_ * task_.height * columns;
        for (std::int64_t block = 0; block < plane_.blocks; ++block)
            load_columns(otf, columns, block, task_.height, plane_.columns.position.data(),
                         &otf_[block * plane_.stride]);
        eigenvalues(otf_.data(), rho(), 1 / plane_.round_trip, size, eigenvalues_.data());

        const Gaps &gaps = gaps_[task_.masks == 1 ? 0 : sample_];
        if (gap_ != &gaps) {
            gap_ = &gaps;
            for (std::vector<float> *const vector : {&start_, &solution_, &residual_})
                vector->assign(static_cast<std::size_t>(values()), 0.0f);
            gradients_.resize(values());
            preconditioner_.place(gaps);
        }
        preconditioner_.factor(otf, task_.rho[sample_], task_.least);

        double plain[2] = {};
        for (std::int64_t c = 0; c < task_.channels; ++c)
            prepare_channel(c, plain);
        // As the reference has it; the squares are of twice the transforms.
        const double points = double(task_.height) * double(task_.width);
        const double caution = gap_->holes ? task_.caution_with_holes : task_.caution;
        const double relative = task_.tolerance / caution;
        allowed_ =
            task_.rho[sample_] * relative * relative * (double(task_.channels) * points + plain[1] / (4 * points));
        allowed_ = std::max(allowed_, task_.rounding * task_.rounding * plain[0] / (4 * points));
    }

    void prepare_channel(std::int64_t c, double *squares) {
        Row *const missing = &missing_[c * plane_.spectrum_size()], *const spectrum = spectrum_.data();
        float *const start = &start_[c * gap_->padded];
        const float *const x0 = image_of(task_.x0, c), *const y = image_of(task_.y, c);
        forward(spectrum, [&](std::int64_t i, Row *strip) { plane_.load_strip(x0, i, strip); });
        if (task_.fill) {
            each(plane_.strips, [&](std::int64_t i) {
                Row *const strip = plane_.scratch_strip();
                plane_.load_strip(image_of(task_.fill, c), i, strip);
                gap_->store(strip, i, start);
            });
        } else {
            each(plane_.blocks, [&](std::int64_t block) {
                const std::int64_t at = block * plane_.stride;
                add_product(missing + at, 0, &otf_[at], 1 / plane_.round_trip, spectrum + at, plane_.stride);
            });
            inverse(missing, [&](std::int64_t i, Row *strip) { gap_->store(strip, i, start); });
        }
        forward(missing, [&](std::int64_t i, Row *strip) {
            plane_.load_strip(y, i, strip);
            gap_->load(start, i, strip);
        });
        std::vector<double> sums(static_cast<std::size_t>(2 * plane_.blocks * kLanes), 0.0);
        each(plane_.blocks, [&](std::int64_t block) {
            const std::int64_t at = block * plane_.stride;
            add_product(missing + at, 1, &otf_[at], -1, spectrum + at, plane_.stride);
            norms(&otf_[at], rho(), missing + at, task_.height, &sums[2 * block * kLanes],
                  &sums[(2 * block + 1) * kLanes]);
            multiply(missing + at, &eigenvalues_[at], plane_.stride, spectrum + at);
        });
        for (std::int64_t column = 0; column <= task_.width / 2; ++column)
            for (int kind = 0; kind < 2; ++kind) {
                const bool once = column == 0 || 2 * column == task_.width;
                squares[kind] += (once ? 1 : 2) * sums[(2 * (column / kLanes) + kind) * kLanes + column % kLanes];
            }
        // The negative difference of the fill and its reproduction is the right-hand side.
        float *const residual = &residual_[c * gap_->padded];
        inverse(spectrum, [&](std::int64_t i, Row *strip) { gap_->store(strip, i, residual); });
        combine(residual, -2, residual, gap_->padded, residual);
    }

    // N T N of `vector`
    void apply(const float *vector, float *image) {
        for (std::int64_t c = 0; c < task_.channels; ++c) {
            const float *const from = vector + c * gap_->padded;
            float *const to = image + c * gap_->padded;
            Row *const spectrum = spectrum_.data();
            each(plane_.strips, [&](std::int64_t i) {
                Row *const strip = plane_.scratch_strip();
                gap_->load_alone(from, i, strip, plane_.pairs);
                plane_.strip_forward(strip, i, spectrum);
            });
            each(plane_.blocks, [&](std::int64_t block) {
                Row *const rows = spectrum + block * plane_.stride;
                plane_.columns_forward(spectrum, block);
                multiply(rows, &eigenvalues_[block * plane_.stride], task_.height, rows);
                plane_.columns_inverse(spectrum, block);
            });
            each(plane_.strips, [&](std::int64_t i) {
                Row *const strip = plane_.scratch_strip();
                plane_.strip_inverse(spectrum, i, strip);
                gap_->store(strip, i, to);
            });
        }
    }

    void finish() {
        const float scale = 1 / plane_.round_trip;
        for (std::int64_t c = 0; c < task_.channels; ++c) {
            const float *const change = &solution_[c * gap_->padded];
            float *const fill = &start_[c * gap_->padded];
            Row *const spectrum = spectrum_.data();
            forward(spectrum, [&](std::int64_t i, Row *strip) { gap_->load_alone(change, i, strip, plane_.pairs); });
            each(plane_.blocks, [&](std::int64_t block) {
                const std::int64_t at = block * plane_.stride;
                correct(&otf_[at], rho(), scale, &missing_[c * plane_.spectrum_size() + at], plane_.stride,
                        spectrum + at);
            });
            const std::int64_t offset = (sample_ * task_.channels + c) * task_.height * task_.width;
            combine(fill, 1, change, gap_->padded, fill);
            float *const x = task_.x + offset, *const filled = task_.filled + offset;
            const float *const x0 = task_.x0 + offset;
            inverse(spectrum, [&](std::int64_t i, Row *strip) {
                const std::int64_t first = i * kLanes * task_.width;
                const std::int64_t count = std::min(kLanes * task_.width, task_.height * task_.width - first);
                plane_.store_strip(strip, i, x);
                combine(x + first, 1, x0 + first, count, x + first);
                gap_->load_alone(fill, i, strip, plane_.pairs);
                plane_.store_strip(strip, i, filled);
            });
        }
    }
};

} // namespace

void masked_proximal(const MaskedProximal &task) {
    const PlaneFft plane(task.height, task.width);
    std::vector<Gaps> gaps;
    for (std::int64_t i = 0; i < task.masks; ++i)
        gaps.emplace_back(plane, task.mask + i * task.height * task.width, task.band_rows, task.row_count,
                          task.band_columns, task.column_count);
    solve_samples(task.batch, task.threads, Solver(task, plane, gaps));
}

} // namespace latentdem
