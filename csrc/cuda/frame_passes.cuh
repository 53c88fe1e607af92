// The preconditioner of masked_proximal applied to a residual, in three passes of a cooperative kernel with a barrier
// after each: lines of the bands to frequencies, products with the inverses, and back.
#pragma once

#include "frame_preconditioner.hpp"
#include "grid_passes.cuh"

namespace latentdem::cuda {

struct FrameWork {
    const FrameBand *bands;
    const int *places;        // height + width: the number of a line in its band, or -1
    const float *inverses[2]; // as in FramePreconditioner
    float2 *spectra[2];       // batch x frequencies x channels x kBand
    float *solutions[2];      // of rows: batch x channels x kBand x width; of columns: ... x height x kBand
    std::int64_t batch, channels;
};

// One of the two bands.
struct BandWork {
    const FrameBand &band;
    const LinePlan &plan;
    const float *inverses;
    float2 *spectra;
    float *solutions;
    bool rows;

    __device__ BandWork(const FrameWork &work, const Grid &grid, bool rows)
        : band(work.bands[rows ? 0 : 1]), plan(rows ? grid.across : grid.down),
          inverses(rows ? work.inverses[0] : work.inverses[1]), spectra(rows ? work.spectra[0] : work.spectra[1]),
          solutions(rows ? work.solutions[0] : work.solutions[1]), rows(rows) {}

    __device__ int frequencies() const { return plan.points / 2 + 1; }
    __device__ Lines<kPairs> lines(GridBlock &block) const { return rows ? block.across() : block.down(); }
};

// function(band, unit) for the units of both bands that are this block's; `units` gives their number in a band.
template <class Units, class Function>
__device__ __forceinline__ void each_band_unit(const FrameWork &work, const Grid &grid, Units units,
                                               Function function) {
    const std::int64_t of_rows = units(BandWork(work, grid, true));
    const std::int64_t of_both = of_rows + units(BandWork(work, grid, false));
    for (std::int64_t unit = blockIdx.x; unit < of_both; unit += gridDim.x) {
        const bool rows = unit < of_rows;
        function(BandWork(work, grid, rows), rows ? unit : unit - of_rows);
    }
}

// function(band, plane, first line) for every kLines lines of a band of a sample that is active.
template <class Active, class Function>
__device__ __forceinline__ void each_band_lines(const FrameWork &work, const Grid &grid, Active active,
                                                Function function) {
    const auto units = [&](const BandWork &work_of_band) {
        return work.batch * work.channels * units_of(work_of_band.band.count, kLines);
    };
    each_band_unit(work, grid, units, [&](const BandWork &band, std::int64_t unit) {
        const std::int64_t groups = units_of(band.band.count, kLines), plane = unit / groups;
        if (active(plane / work.channels))
            function(band, plane, static_cast<int>(unit % groups) * kLines);
    });
}

// residual(plane, row, column) to frequencies along the lines.
template <class Active, class Residual>
__device__ __forceinline__ void bands_to_frequencies(const FrameWork &work, const Grid &grid, GridBlock &block,
                                                     Active active, Residual residual) {
    each_band_lines(work, grid, active, [&](const BandWork &band, std::int64_t plane, int first) {
        const std::int64_t image = plane / work.channels, channel = plane % work.channels;
        float2 *const to = band.spectra + (image * band.frequencies() * work.channels + channel) * kBand;
        forward_lines(
            band.lines(block), band.plan,
            [&](int line, int n) {
                if (first + line >= band.band.count)
                    return 0.0f;
                const int place = band.band.lines[first + line];
                return band.rows ? residual(plane, place, n) : residual(plane, n, place);
            },
            [&](int line, int frequency, float2 number) {
                if (first + line < band.band.count)
                    to[frequency * work.channels * kBand + first + line] = number;
            });
    });
}

// The products with the inverses, in place. A block of them acts on a complex vector as a real matrix on two real ones.
template <class Active>
__device__ __forceinline__ void solve_bands(const FrameWork &work, const Grid &grid, GridBlock &block, Active active) {
    const auto units = [&](const BandWork &band) {
        return band.band.count ? work.batch * band.frequencies() * work.channels : 0;
    };
    each_band_unit(work, grid, units, [&](const BandWork &band, std::int64_t unit) {
        const std::int64_t at = unit / work.channels; // image and frequency
        if (!active(at / band.frequencies()))
            return;
        const int count = band.band.count, thread = static_cast<int>(threadIdx.x);
        const float *const inverse = band.inverses + at * kBand * kBand;
        float2 *const spectrum = band.spectra + unit * kBand;
        const Lines<kUnitColumns> memory = block.columns();
        float *const given = reinterpret_cast<float *>(memory.values), *const found =
                                                                           reinterpret_cast<float *>(memory.spare);
        for (int i = thread; i < count; i += kThreads) {
            const float2 a = spectrum[i], b = spectrum[count - 1 - i];
            given[i] = 0.5f * (a.x + a.y + b.x - b.y);
            given[count + i] = 0.5f * (b.x + b.y - a.x + a.y);
        }
        __syncthreads();
        for (int n = thread; n < 2 * count; n += kThreads) {
            const int i = n % count;
            const float *const vector = given + n - i;
            float sum = 0.0f;
            for (int j = 0; j < count; ++j) // a row of the symmetric matrix, but neighbouring threads read neighbours
                sum += inverse[j * count + i] * vector[j];
            found[n] = sum;
        }
        __syncthreads();
        for (int i = thread; i < count; i += kThreads) {
            const float plus = found[i] + found[2 * count - 1 - i], minus = found[count - 1 - i] - found[count + i];
            spectrum[i] = {0.5f * (plus + minus), 0.5f * (plus - minus)};
        }
    });
}

// Back to the points of the lines.
template <class Active>
__device__ __forceinline__ void bands_to_points(const FrameWork &work, const Grid &grid, GridBlock &block,
                                                Active active) {
    each_band_lines(work, grid, active, [&](const BandWork &band, std::int64_t plane, int first) {
        const std::int64_t image = plane / work.channels, channel = plane % work.channels;
        const float2 *const from = band.spectra + (image * band.frequencies() * work.channels + channel) * kBand;
        const int points = band.plan.points;
        float *const to = band.solutions + plane * kBand * points;
        const float scale = 1.0f / static_cast<float>(points);
        inverse_lines(
            band.lines(block), band.plan,
            [&](int line, int frequency) {
                return first + line < band.band.count ? from[frequency * work.channels * kBand + first + line]
                                                      : float2{0.0f, 0.0f};
            },
            [&](int line, int n, float value) {
                if (first + line < band.band.count)
                    to[band.rows ? (first + line) * points + n : n * kBand + first + line] = scale * value;
            });
    });
}

// What both bands have for a point.
__device__ __forceinline__ float bands_at(const FrameWork &work, const Grid &grid, std::int64_t plane, int row,
                                          int column, int row_place, int column_place) {
    float value = 0.0f;
    if (row_place >= 0)
        value += work.solutions[0][(plane * kBand + row_place) * grid.width + column];
    if (column_place >= 0)
        value += work.solutions[1][(plane * grid.height + row) * kBand + column_place];
    return value;
}

} // namespace latentdem::cuda
