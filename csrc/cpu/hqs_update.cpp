// Z = data_term + crop(g * k) on a padded grid of M x M points, M = 2L >= 2K. No transform is longer than L, because
// half of the points of every sequence are zero on the way in and not wanted on the way out:
//   rows      are real: one transform of x[2n] + i x[2n+1], whose result separates into the frequencies 0..L. Those of
//             0 and L are real until the columns are transformed and share the two parts of one sequence;
//   columns   even frequencies: one transform of x[n]; odd ones: one of x[n] exp(-2 pi i n / M).
// The filter is brought, once a call, into the order in which the transforms leave the frequencies.
#include "hqs_update.hpp"

#include <algorithm>
#include <vector>

#include "lane_fft.hpp"
#include "lane_tiles.hpp"
#include "multiversion.hpp"
#include "parallel.hpp"

namespace latentdem {
namespace {

constexpr std::int64_t kGrain = 32768; // grid points times iterations worth a thread

// Gains of the sequence that row frequencies 0 and L share.
struct Shared {
    float sum, difference; // of the gains of 0 and L
    std::int64_t opposite; // place of the opposite column frequency
};

// The arrays of one sample. Lanes and rows that only fill up a block stay zero.
struct Workspace {
    Workspace(const FftPlan &plan, std::int64_t size)
        : column_blocks((size + kLanes - 1) / kLanes), frequency_blocks((plan.length + kLanes - 1) / kLanes),
          kernel((size + 1) * column_blocks), data_term(kernel.size()), gains(frequency_blocks * 2 * plan.length),
          shared(2 * plan.length), frequencies(frequency_blocks * kLanes), rows(plan.length), odd_rows(plan.length),
          spectra(frequency_blocks * column_blocks * kLanes) {}

    std::int64_t column_blocks, frequency_blocks;
    std::vector<Values> kernel, data_term; // row, block of columns
    std::vector<Values> gains;             // block of row frequencies, parity of the column frequency, its place
    std::vector<Shared> shared;            // parity, place; in `gains` that sequence has ones
    std::vector<Row> frequencies;          // row frequency; lanes are the columns of a block
    std::vector<Row> rows, odd_rows;       // under transformation
    std::vector<Row> spectra;              // block of row frequencies, column; lanes are the row frequencies
};

void load(const float *from, std::int64_t size, std::int64_t blocks, Values *to) {
    for (std::int64_t row = 0; row < size; ++row)
        for (std::int64_t column = 0; column < size; ++column)
            to[row * blocks + column / kLanes].at[column % kLanes] = from[row * size + column];
}

void store(const Values *from, std::int64_t size, std::int64_t blocks, float divisor, float *to) {
    for (std::int64_t row = 0; row < size; ++row)
        for (std::int64_t column = 0; column < size; ++column)
            to[row * size + column] = from[row * blocks + column / kLanes].at[column % kLanes] / divisor;
}

void arrange_filter(const FftPlan &plan, const float *filter, Workspace &work) {
    const std::int64_t half = plan.length, side = 2 * half;
    // Two doublings by the separations and the missing normalisation of the transforms.
    const float scale = static_cast<float>(0.5 / double(side * side));
    const auto gain = [=](std::int64_t row, std::int64_t column) { // as a real inverse transform takes it: even
        const std::int64_t opposite = row == 0 ? 0 : side - row;
        if (column % half == 0)
            return 0.5f * scale * (filter[row * (half + 1) + column] + filter[opposite * (half + 1) + column]);
        return scale *
               (column < half ? filter[row * (half + 1) + column] : filter[opposite * (half + 1) + side - column]);
    };
    for (std::int64_t column = 0; column < side; ++column) {
        const std::int64_t parity = column % 2, first = parity * half;
        const std::int64_t place = plan.position[column / 2];
        for (std::int64_t row = 0; row < half; ++row)
            work.gains[(row / kLanes * 2 + parity) * half + place].at[row % kLanes] = gain(row, column);
        const float a = gain(0, column), b = gain(half, column);
        work.gains[first + place].at[0] = 1;
        // Half of them, doubled because this sequence has not been.
        work.shared[first + place] = {a + b, a - b, plan.position[(side - column) % side / 2]};
    }
}

LATENTDEM_MULTIVERSION void transpose(const Row *from, Row *to) { transpose_rows(from, to); }

// Frequencies 0 and L are the sum and the difference of the parts of Z[0]; kept as the parts of one number.
LATENTDEM_INLINE void separate_first(const Row &from, Row &to) {
    LATENTDEM_INDEPENDENT
    for (int lane = 0; lane < kLanes; ++lane) {
        to.re[lane] = from.re[lane] + from.im[lane];
        to.im[lane] = from.re[lane] - from.im[lane];
    }
}

// Rows of one block of columns to their frequencies. The kernel is divided by `divisor` on the way.
LATENTDEM_MULTIVERSION void transform_rows(const FftPlan &plan, const Values *kernel, std::int64_t stride,
                                           std::int64_t size, float divisor, Row *rows, Row *frequencies) {
    const std::int64_t pairs = (size + 1) / 2, half = plan.length;
    for (std::int64_t n = 0; n < pairs; ++n) {
        const Values &even = kernel[2 * n * stride], &odd = kernel[(2 * n + 1) * stride];
        LATENTDEM_INDEPENDENT
        for (int lane = 0; lane < kLanes; ++lane) {
            rows[n].re[lane] = even.at[lane] / divisor;
            rows[n].im[lane] = odd.at[lane] / divisor;
        }
    }
    std::fill(rows + pairs, rows + half, Row{});
    fft_forward(plan, rows);
    const int *const place = plan.position.data();
    separate_first(rows[0], frequencies[0]);
    for (std::int64_t u = 1; 2 * u <= half; ++u)
        separate(rows[place[u]], rows[place[half - u]], plan.sine[u], -plan.cosine[u], frequencies[u],
                 frequencies[half - u]);
}

// The first lane holds P = A + i B, A and B Hermitian. Gains a and b turn it into (a + b) / 2 P plus (a - b) / 2 times
// the conjugate of P at the opposite frequency; the two frequencies are changed together.
LATENTDEM_INLINE void filter_shared(const Shared *shared, std::int64_t half, Row *rows) {
    for (std::int64_t i = 0; i < half; ++i) {
        const auto [sum, difference, opposite] = shared[i];
        if (i > opposite)
            continue;
        Row &a = rows[i], &b = rows[opposite];
        const float a_re = a.re[0], a_im = a.im[0], b_re = b.re[0], b_im = b.im[0];
        a.re[0] = sum * a_re + difference * b_re;
        a.im[0] = sum * a_im - difference * b_im;
        b.re[0] = sum * b_re + difference * a_re;
        b.im[0] = sum * b_im - difference * a_im;
    }
}

// Columns of one block of row frequencies: transformed, filtered, transformed back. `shared` is null but for the block
// whose first lane holds the row frequencies 0 and L.
LATENTDEM_MULTIVERSION void filter_columns(const FftPlan &plan, std::int64_t size, const Values *gains,
                                           const Shared *shared, Row *columns, Row *even, Row *odd) {
    const std::int64_t half = plan.length;
    for (std::int64_t n = 0; n < size; ++n) {
        const float re = plan.cosine[n], im = plan.sine[n];
        LATENTDEM_INDEPENDENT
        for (int lane = 0; lane < kLanes; ++lane) {
            const float x_re = columns[n].re[lane], x_im = columns[n].im[lane];
            even[n].re[lane] = x_re;
            even[n].im[lane] = x_im;
            odd[n].re[lane] = re * x_re - im * x_im;
            odd[n].im[lane] = re * x_im + im * x_re;
        }
    }
    for (Row *const rows : {even, odd}) {
        const std::int64_t first = rows == even ? 0 : half;
        std::fill(rows + size, rows + half, Row{});
        fft_forward(plan, rows);
        for (std::int64_t i = 0; i < half; ++i) {
            const float *const gain = gains[first + i].at;
            LATENTDEM_INDEPENDENT
            for (int lane = 0; lane < kLanes; ++lane) {
                rows[i].re[lane] *= gain[lane];
                rows[i].im[lane] *= gain[lane];
            }
        }
        if (shared)
            filter_shared(shared + first, half, rows);
        fft_inverse(plan, rows);
    }
    for (std::int64_t n = 0; n < size; ++n) {
        const float re = plan.cosine[n], im = plan.sine[n];
        LATENTDEM_INDEPENDENT
        for (int lane = 0; lane < kLanes; ++lane) {
            columns[n].re[lane] = even[n].re[lane] + re * odd[n].re[lane] + im * odd[n].im[lane];
            columns[n].im[lane] = even[n].im[lane] + re * odd[n].im[lane] - im * odd[n].re[lane];
        }
    }
}

// Frequencies of one block of columns back to rows, which the data term is added to; returns the sum of the kernel's
// new values, after the negative ones have been clipped if `project`.
LATENTDEM_MULTIVERSION double restore_rows(const FftPlan &plan, const Row *frequencies, Row *rows,
                                           const Values *data_term, Values *kernel, std::int64_t stride,
                                           std::int64_t size, bool project) {
    const std::int64_t half = plan.length;
    const int *const place = plan.position.data();
    separate_first(frequencies[0], rows[0]);
    for (std::int64_t u = 1; 2 * u <= half; ++u)
        separate(frequencies[u], frequencies[half - u], plan.sine[u], plan.cosine[u], rows[place[u]],
                 rows[place[half - u]]);
    fft_inverse(plan, rows);
    double sums[kLanes] = {};
    for (std::int64_t row = 0; row < size; ++row) {
        const float *const response = row % 2 ? rows[row / 2].im : rows[row / 2].re;
        const float *const data = data_term[row * stride].at;
        float *const out = kernel[row * stride].at;
        LATENTDEM_INDEPENDENT
        for (int lane = 0; lane < kLanes; ++lane) {
            const float value = data[lane] + response[lane];
            out[lane] = project && value < 0 ? 0.0f : value;
            sums[lane] += out[lane];
        }
    }
    double sum = 0;
    for (const double part : sums)
        sum += part;
    return sum;
}

void update_sample(const HqsUpdate &task, const FftPlan &plan, std::int64_t sample, Workspace &work) {
    const std::int64_t size = task.size, blocks = work.column_blocks, columns = blocks * kLanes;
    load(task.kernel + sample * size * size, size, blocks, work.kernel.data());
    load(task.data_term + sample * size * size, size, blocks, work.data_term.data());
    arrange_filter(plan, task.filter + sample * task.side * (task.side / 2 + 1), work);
    float divisor = 1;
    for (std::int64_t iteration = 0; iteration < task.iterations; ++iteration) {
        for (std::int64_t block = 0; block < blocks; ++block) {
            transform_rows(plan, &work.kernel[block], blocks, size, divisor, work.rows.data(), work.frequencies.data());
            for (std::int64_t f = 0; f < work.frequency_blocks; ++f)
                transpose(&work.frequencies[f * kLanes], &work.spectra[f * columns + block * kLanes]);
        }
        for (std::int64_t f = 0; f < work.frequency_blocks; ++f)
            filter_columns(plan, size, &work.gains[f * 2 * plan.length], f == 0 ? work.shared.data() : nullptr,
                           &work.spectra[f * columns], work.rows.data(), work.odd_rows.data());
        double sum = 0;
        for (std::int64_t block = 0; block < blocks; ++block) {
            for (std::int64_t f = 0; f < work.frequency_blocks; ++f)
                transpose(&work.spectra[f * columns + block * kLanes], &work.frequencies[f * kLanes]);
            sum += restore_rows(plan, work.frequencies.data(), work.rows.data(), &work.data_term[block],
                                &work.kernel[block], blocks, size, task.project);
        }
        if (task.project) {
            divisor = static_cast<float>(sum);
            if (!(divisor > 0)) { // nothing is left of the kernel
                for (std::int64_t i = 0; i < size * size; ++i)
                    work.kernel[i / size * blocks + i % size / kLanes].at[i % size % kLanes] = 1;
                divisor = static_cast<float>(size * size);
            }
        }
    }
    store(work.kernel.data(), size, blocks, divisor, task.updated + sample * size * size);
}

} // namespace

void hqs_update(const HqsUpdate &task) {
    const FftPlan &plan = plan_of(task.side / 2);
    const std::int64_t passes = task.iterations + 1; // to arrange the filter takes about as long as an iteration
    const std::int64_t grain = 1 + kGrain / (passes * task.side * task.side);
    parallel_for(task.batch, grain, task.threads, Workspace(plan, task.size),
                 [&](std::int64_t sample, Workspace &work) { update_sample(task, plan, sample, work); });
}

} // namespace latentdem
