// The conjugate gradients of masked_proximal, as passes of a cooperative kernel. A vector of the iteration is zero at
// the measured pixels, where its arrays are neither read nor written.
#pragma once

#include "frame_passes.cuh"
#include "launch.cuh"
#include "masked_proximal.hpp"
#include "plane_passes.cuh"

namespace latentdem::cuda {

enum Sum { kDot, kCorrection, kSpectrum, kEigenvalues, kHoles, kSums };

struct ProximalSolve {
    MaskedProximal problem;
    Planes planes;
    FrameWork frame;
    float2 *otf;                                                // batch x height x columns
    float2 *spectrum;                                           // batch x channels x height x columns
    float *change, *residual, *direction, *conditioned, *image; // batch x channels x height x width
    float *diagonal;                                            // batch: inverse of the diagonal of T
    Sample *samples;                                            // batch
};

// The passes of the solver, for one block.
class ProximalSolver {
  public:
    __device__ ProximalSolver(const ProximalSolve &solve, float2 *memory)
        : s(solve), p(solve.problem), g(solve.planes.grid), passes(solve.planes, memory) {}

    __device__ void solve() {
        start();
        for (int done = 0;; ++done) {
            condition(done > 0);
            if (done == p.iterations || !some_active(s.samples, p.batch))
                break;
            multiply(done == 0);
        }
        finish();
    }

  private:
    const ProximalSolve &s;
    const MaskedProximal &p;
    const Grid &g;
    PlanePasses passes;

    __device__ bool active(std::int64_t image) const { return s.samples[image].active != 0; }

    __device__ bool is_gap(std::int64_t image, int row, int column) const {
        return !(p.mask[((p.masks == 1 ? 0 : image) * g.height + row) * g.width + column] > 0.0f);
    }
    __device__ std::int64_t point(std::int64_t plane, int row, int column) const {
        return (plane * g.height + row) * g.width + column;
    }
    __device__ float2 transfer(const Unit &unit, int row, int column) const {
        return s.otf[(unit.image * g.height + row) * g.columns + column];
    }
    __device__ float2 &spectrum(const Unit &unit, int row, int column) const {
        return s.spectrum[(unit.plane * g.height + row) * g.columns + column];
    }

    // The start, the residual of it and what is allowed to be left.
    __device__ void start() {
        passes.each_rows([&](const Unit &unit) {
            passes.to_rows(unit, [&](int row, int column) { return p.x0[point(unit.plane, row, column)]; });
        });
        LATENTDEM_GRID_BARRIER();
        passes.each_columns([&](const Unit &unit) {
            passes.change_columns(unit, [&](int row, int column, float2 number) {
                return spectrum(unit, row, column) = transfer(unit, row, column) * number;
            });
        });
        LATENTDEM_GRID_BARRIER();
        passes.each_rows([&](const Unit &unit) { fill_rows(unit); });
        LATENTDEM_GRID_BARRIER();
        passes.each_columns([&](const Unit &unit) { residual_columns(unit); });
        LATENTDEM_GRID_BARRIER();
        passes.each_rows([&](const Unit &unit) {
            passes.from_rows(unit, [&](int row, int column, float value) {
                if (!is_gap(unit.image, row, column))
                    return;
                const std::int64_t at = point(unit.plane, row, column);
                s.change[at] = 0.0f;
                s.residual[at] = -value;
            });
        });
        passes.each_image([&](std::int64_t image) { allow(image); });
        LATENTDEM_GRID_BARRIER();
    }

    // The measurement with the first fill, to the transforms of its rows.
    __device__ void fill_rows(const Unit &unit) {
        float holes = 0.0f;
        const int *const columns = s.frame.places + g.height;
        const auto filled = [&](int row, int column, float blurred) {
            const std::int64_t at = point(unit.plane, row, column);
            const bool gap = is_gap(unit.image, row, column);
            const float start = gap ? (p.fill ? p.fill[at] : blurred) : 0.0f;
            holes += gap && s.frame.places[row] < 0 && columns[column] < 0 ? 1.0f : 0.0f;
            p.filled[at] = start;
            return gap ? start : p.y[at];
        };
        passes.change_rows(unit, filled);
        passes.put_sum(kHoles, unit.image, unit.part, holes);
    }

    // The transform of y - K x0, filled, and T of it, transformed back along columns.
    __device__ void residual_columns(const Unit &unit) {
        const float rho = p.rho[unit.image];
        float correction = 0.0f, power = 0.0f, eigenvalues = 0.0f;
        passes.change_columns(unit, [&](int row, int column, float2 number) {
            float2 &w = spectrum(unit, row, column);
            w = number - w;
            const float gain = norm2(transfer(unit, row, column)), eigenvalue = rho / (gain + rho);
            // A column of the half spectrum counts for its mirror image too, except zero and Nyquist.
            const float weight = column == 0 || 2 * column == g.width ? 1.0f : 2.0f;
            const float least = static_cast<float>(p.least);
            power += weight * norm2(w);
            correction += weight * norm2(w) * gain / ((gain + rho) * (gain + rho));
            eigenvalues += weight * (eigenvalue < least ? least : eigenvalue);
            return eigenvalue * w;
        });
        passes.put_sum(kCorrection, unit.image, unit.part, correction);
        passes.put_sum(kSpectrum, unit.image, unit.part, power);
        passes.put_sum(kEigenvalues, unit.image, unit.part, eigenvalues);
    }

    __device__ void allow(std::int64_t image) {
        const float correction = passes.total(kCorrection, image, s.planes.column_parts);
        const float power = passes.total(kSpectrum, image, s.planes.column_parts);
        const float eigenvalues = passes.total(kEigenvalues, image, s.planes.column_parts); // once in every channel
        const float holes = passes.total(kHoles, image, s.planes.row_parts);
        const float area = passes.area(), channels = static_cast<float>(p.channels);
        const float relative = static_cast<float>(p.tolerance / (holes > 0.0f ? p.caution_with_holes : p.caution));
        const float rounding = static_cast<float>(p.rounding);
        const float allowed = p.rho[image] * relative * relative * (channels * area + correction / area);
        const float least = rounding * rounding * (power / area);
        if (threadIdx.x == 0) {
            s.diagonal[image] = area * channels / eigenvalues;
            s.samples[image] = {allowed < least ? least : allowed, 0.0f, 0.0f, 0.0f, 1};
        }
    }

    // N T N direction, and the step.
    __device__ void multiply(bool first) {
        passes.each_rows([&](const Unit &unit) {
            if (!active(unit.image))
                return;
            const float ratio = s.samples[unit.image].ratio;
            passes.to_rows(unit, [&](int row, int column) {
                if (!is_gap(unit.image, row, column))
                    return 0.0f;
                const std::int64_t at = point(unit.plane, row, column);
                return s.direction[at] = first ? s.conditioned[at] : s.conditioned[at] + ratio * s.direction[at];
            });
        });
        LATENTDEM_GRID_BARRIER();
        passes.each_columns([&](const Unit &unit) {
            if (!active(unit.image))
                return;
            const float rho = p.rho[unit.image];
            passes.change_columns(unit, [&](int row, int column, float2 number) {
                return rho / (norm2(transfer(unit, row, column)) + rho) * number;
            });
        });
        LATENTDEM_GRID_BARRIER();
        passes.each_rows([&](const Unit &unit) {
            if (!active(unit.image))
                return;
            float dot = 0.0f;
            passes.from_rows(unit, [&](int row, int column, float value) {
                if (!is_gap(unit.image, row, column))
                    return;
                const std::int64_t at = point(unit.plane, row, column);
                s.image[at] = value;
                dot += s.direction[at] * value;
            });
            passes.put_sum(kDot, unit.image, unit.part, dot);
        });
        LATENTDEM_GRID_BARRIER();
        passes.each_image([&](std::int64_t image) {
            if (!active(image))
                return;
            const float inner = passes.total(kDot, image, s.planes.row_parts);
            Sample &sample = s.samples[image];
            if (threadIdx.x == 0)
                sample.step = Sample::quotient(sample.power, inner);
        });
        LATENTDEM_GRID_BARRIER();
    }

    // The step, the preconditioned residual and whether that is enough.
    __device__ void condition(bool moved) {
        const auto is_active = [&](std::int64_t image) { return active(image); };
        const auto residual = [&](std::int64_t plane, int row, int column) {
            const std::int64_t at = point(plane, row, column);
            return moved ? s.residual[at] - s.samples[plane / p.channels].step * s.image[at] : s.residual[at];
        };
        bands_to_frequencies(s.frame, g, passes.block, is_active, residual);
        LATENTDEM_GRID_BARRIER();
        solve_bands(s.frame, g, passes.block, is_active);
        LATENTDEM_GRID_BARRIER();
        bands_to_points(s.frame, g, passes.block, is_active);
        LATENTDEM_GRID_BARRIER();
        passes.each_rows([&](const Unit &unit) {
            if (!active(unit.image))
                return;
            const float step = s.samples[unit.image].step, diagonal = s.diagonal[unit.image];
            float dot = 0.0f;
            each_point(kLines, g.width, [&](int line, int column) {
                const int row = unit.first + line;
                if (row >= g.height || !is_gap(unit.image, row, column))
                    return;
                const std::int64_t at = point(unit.plane, row, column);
                const int row_place = s.frame.places[row], column_place = s.frame.places[g.height + column];
                const float left = residual(unit.plane, row, column);
                const float solved = row_place < 0 && column_place < 0
                                         ? diagonal * left
                                         : bands_at(s.frame, g, unit.plane, row, column, row_place, column_place);
                if (moved) {
                    s.residual[at] = left;
                    s.change[at] += step * s.direction[at];
                }
                s.conditioned[at] = solved;
                dot += left * solved;
            });
            passes.put_sum(kDot, unit.image, unit.part, dot);
        });
        LATENTDEM_GRID_BARRIER();
        passes.each_image([&](std::int64_t image) {
            if (!active(image))
                return;
            const float left = passes.total(kDot, image, s.planes.row_parts);
            if (threadIdx.x == 0)
                s.samples[image].go_on(left, moved);
        });
        LATENTDEM_GRID_BARRIER();
    }

    // The image that follows from the fill.
    __device__ void finish() {
        passes.each_rows([&](const Unit &unit) {
            passes.to_rows(unit, [&](int row, int column) {
                if (!is_gap(unit.image, row, column))
                    return 0.0f;
                const std::int64_t at = point(unit.plane, row, column);
                p.filled[at] += s.change[at];
                return s.change[at];
            });
        });
        LATENTDEM_GRID_BARRIER();
        passes.each_columns([&](const Unit &unit) {
            const float rho = p.rho[unit.image];
            passes.change_columns(unit, [&](int row, int column, float2 number) {
                const float2 h = transfer(unit, row, column);
                return conj(h) * (spectrum(unit, row, column) + number) / (norm2(h) + rho);
            });
        });
        LATENTDEM_GRID_BARRIER();
        passes.each_rows([&](const Unit &unit) {
            passes.from_rows(unit, [&](int row, int column, float value) {
                const std::int64_t at = point(unit.plane, row, column);
                p.x[at] = p.x0[at] + value;
            });
        });
    }
};

} // namespace latentdem::cuda
