#include "hqs_prepare.hpp"

#include <algorithm>
#include <vector>

#include "columns.hpp"
#include "multiversion.hpp"
#include "parallel.hpp"

namespace latentdem {
namespace {

constexpr std::int64_t kRowGrain = 1024; // rows of blocks worth a thread

struct Workspace {
    explicit Workspace(std::int64_t height)
        : x(height), total(height), y(height), numerator(height), solution(height), response(height), power(height) {}

    std::vector<Row> x, total, y;                   // a sample, the sum of the samples, the measurement
    std::vector<Row> numerator, solution, response; // N, and the two results
    std::vector<Values> power;                      // D
};

LATENTDEM_MULTIVERSION void add_sample(const Row *__restrict x, std::int64_t rows, Row *__restrict total,
                                       Values *__restrict power) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            const float re = x[n].re[lane], im = x[n].im[lane];
            total[n].re[lane] += re;
            total[n].im[lane] += im;
            power[n].at[lane] += re * re + im * im;
        }
}

// N <- N + conj(total) y.
LATENTDEM_MULTIVERSION void add_product(const Row *__restrict total, const Row *__restrict y, std::int64_t rows,
                                        Row *__restrict numerator) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            const float re = total[n].re[lane], im = total[n].im[lane];
            numerator[n].re[lane] += re * y[n].re[lane] + im * y[n].im[lane];
            numerator[n].im[lane] += re * y[n].im[lane] - im * y[n].re[lane];
        }
}

LATENTDEM_MULTIVERSION void add_quotients(const Row *__restrict numerator, const Values *__restrict power,
                                          std::int64_t rows, float weight, float scale, Row *__restrict solution,
                                          Row *__restrict response) {
    for (std::int64_t n = 0; n < rows; ++n)
        for (int lane = 0; lane < kLanes; ++lane) {
            const float factor = scale / (power[n].at[lane] + weight);
            solution[n].re[lane] += factor * numerator[n].re[lane];
            solution[n].im[lane] += factor * numerator[n].im[lane];
            response[n].re[lane] += factor * weight;
        }
}

template <class T>
void clear(std::vector<T> &rows) {
    std::fill(rows.begin(), rows.end(), T{});
}

void run_block(const HqsPrepare &task, const FftPlan &plan, std::int64_t sample, std::int64_t block, Workspace &work) {
    const std::int64_t height = task.height, plane = 2 * height * task.columns, lags = 2 * task.size - 1;
    const float weight = static_cast<float>(task.weight[sample]);
    const float scale = 1 / static_cast<float>(task.per_channel ? height * task.channels : height);
    clear(work.numerator);
    clear(work.power);
    clear(work.solution);
    clear(work.response);
    for (std::int64_t c = 0; c < task.channels; ++c) {
        clear(work.total);
        for (std::int64_t s = 0; s < task.samples; ++s) {
            const std::int64_t at = ((sample * task.samples + s) * task.channels + c) * plane;
            load_columns(task.x + at, task.columns, block, height, nullptr, work.x.data());
            fft_forward(plan, work.x.data());
            add_sample(work.x.data(), height, work.total.data(), work.power.data());
        }
        load_columns(task.y + (sample * task.channels + c) * plane, task.columns, block, height,
                     task.whole_y ? plan.position.data() : nullptr, work.y.data());
        if (!task.whole_y)
            fft_forward(plan, work.y.data());
        add_product(work.total.data(), work.y.data(), height, work.numerator.data());
        if (task.per_channel || c == task.channels - 1) {
            add_quotients(work.numerator.data(), work.power.data(), height, weight, scale, work.solution.data(),
                          work.response.data());
            clear(work.numerator);
            clear(work.power);
        }
    }
    float *to = task.lags + 2 * sample * 2 * lags * task.columns;
    for (Row *const result : {work.solution.data(), work.response.data()}) {
        fft_inverse(plan, result);
        store_columns(result + height - task.size + 1, task.columns, block, task.size - 1, to);
        store_columns(result, task.columns, block, task.size, to + 2 * (task.size - 1) * task.columns);
        to += 2 * lags * task.columns;
    }
}

} // namespace

void hqs_prepare(const HqsPrepare &task) {
    const FftPlan &plan = plan_of(task.height);
    const std::int64_t blocks = blocks_of(task.columns);
    parallel_for(task.batch * blocks, 1 + kRowGrain / (task.samples * task.channels * task.height), task.threads,
                 Workspace(task.height), [&](std::int64_t item, Workspace &work) {
                     run_block(task, plan, item / blocks, item % blocks, work);
                 });
}

} // namespace latentdem
