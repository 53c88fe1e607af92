#include "blur.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include "columns.hpp"
#include "multiversion.hpp"
#include "parallel.hpp"

namespace latentdem {
namespace {

constexpr std::int64_t kRowGrain = 1024;     // rows of blocks worth a thread
constexpr std::int64_t kValueGrain = 131072; // values of an elementwise pass worth a thread

struct Workspace {
    explicit Workspace(std::int64_t height) : otf(height), x(height), y(height) {}

    std::vector<Row> otf, x, y;
};

LATENTDEM_MULTIVERSION void multiply(Row *__restrict x, const Row *__restrict otf, std::int64_t rows, float sign,
                                     float scale) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            const float re = x[n].re[lane], im = x[n].im[lane];
            const float k_re = scale * otf[n].re[lane], k_im = sign * scale * otf[n].im[lane];
            x[n].re[lane] = k_re * re - k_im * im;
            x[n].im[lane] = k_re * im + k_im * re;
        }
}

struct Complex {
    float re, im;
};

LATENTDEM_INLINE Complex residual(const Row &x, const Row &y, const Row &otf, int lane) {
    return {y.re[lane] - (otf.re[lane] * x.re[lane] - otf.im[lane] * x.im[lane]),
            y.im[lane] - (otf.re[lane] * x.im[lane] + otf.im[lane] * x.re[lane])};
}

// x <- scale conj(F k) r; adds |r|^2 of every column to its sum.
LATENTDEM_MULTIVERSION void correct(Row *__restrict x, const Row *__restrict y, const Row *__restrict otf,
                                    std::int64_t rows, float scale, double *__restrict sums) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            const Complex r = residual(x[n], y[n], otf[n], lane);
            sums[lane] += r.re * r.re + r.im * r.im;
            x[n].re[lane] = scale * (otf[n].re[lane] * r.re + otf[n].im[lane] * r.im);
            x[n].im[lane] = scale * (otf[n].re[lane] * r.im - otf[n].im[lane] * r.re);
        }
}

// x <- scale conj(F k) r / (|F k|^2 + rho).
LATENTDEM_MULTIVERSION void correct_proximally(Row *__restrict x, const Row *__restrict y, const Row *__restrict otf,
                                               std::int64_t rows, float scale, float rho) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            const Complex r = residual(x[n], y[n], otf[n], lane);
            const float re = otf[n].re[lane], im = otf[n].im[lane], gain = scale / (re * re + im * im + rho);
            x[n].re[lane] = gain * (re * r.re + im * r.im);
            x[n].im[lane] = gain * (re * r.im - im * r.re);
        }
}

// The sum over the columns of a block of the whole spectrum: in the half that is kept every column counts twice, except
// the first and, where the width of the image is even, the last.
double sum_of(const Blur &task, std::int64_t block, const double *sums) {
    double sum = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
        const std::int64_t column = block * kLanes + lane;
        const bool once = column == 0 || (task.even_width && column == task.columns - 1);
        sum += once ? sums[lane] : 2 * sums[lane];
    }
    return sum;
}

void run_block(const Blur &task, const FftPlan &plan, std::int64_t sample, std::int64_t block, Workspace &work,
               double *norm2) {
    const std::int64_t height = task.height, origin = task.size / 2, plane = 2 * height * task.columns;
    const float *const kernel = task.kernel + 2 * sample * task.size * task.columns;
    const float scale = 1 / static_cast<float>(height);
    Row *const otf = work.otf.data(), *const x = work.x.data(), *const y = work.y.data();
    std::fill(work.otf.begin(), work.otf.end(), Row{});
    load_columns(kernel + 2 * origin * task.columns, task.columns, block, task.size - origin, nullptr, otf);
    load_columns(kernel, task.columns, block, origin, nullptr, otf + height - origin);
    fft_forward(plan, otf);
    for (std::int64_t c = 0; c < task.channels; ++c) {
        const std::int64_t at = (sample * task.channels + c) * plane;
        load_columns(task.x + at, task.columns, block, height, nullptr, x);
        fft_forward(plan, x);
        if (!task.y) {
            multiply(x, otf, height, task.adjoint ? -1.0f : 1.0f, scale);
        } else {
            load_columns(task.y + at, task.columns, block, height, task.whole_y ? plan.position.data() : nullptr, y);
            if (!task.whole_y)
                fft_forward(plan, y);
            if (task.rho) {
                correct_proximally(x, y, otf, height, scale, static_cast<float>(task.rho[sample]));
            } else {
                double sums[kLanes] = {};
                correct(x, y, otf, height, scale, sums);
                *norm2 += sum_of(task, block, sums);
            }
        }
        fft_inverse(plan, x);
        store_columns(x, task.columns, block, height, task.x + at);
    }
}

LATENTDEM_MULTIVERSION void finish_part(const float *__restrict x, float *__restrict correction,
                                        float *__restrict glued, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
        glued[i] = x[i] + correction[i];
        correction[i] *= -2;
    }
}

} // namespace

void blur(const Blur &task) {
    const FftPlan &plan = plan_of(task.height);
    const std::int64_t blocks = blocks_of(task.columns);
    std::vector<double> norms(task.batch * blocks, 0.0); // added up in one order on any number of threads
    parallel_for(task.batch * blocks, 1 + kRowGrain / (task.channels * task.height), task.threads,
                 Workspace(task.height), [&](std::int64_t item, Workspace &work) {
                     run_block(task, plan, item / blocks, item % blocks, work, &norms[item]);
                 });
    if (task.norm2)
        for (std::int64_t sample = 0; sample < task.batch; ++sample)
            task.norm2[sample] = std::accumulate(&norms[sample * blocks], &norms[sample * blocks] + blocks, 0.0);
}

void finish_fidelity(const float *x, float *correction, float *glued, std::int64_t count, int threads) {
    parallel_for(count, kValueGrain, threads, [=](std::int64_t begin, std::int64_t end) {
        finish_part(x + begin, correction + begin, glued + begin, end - begin);
    });
}

} // namespace latentdem
