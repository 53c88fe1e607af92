// The conjugate gradients of masked_kernel_solve, as passes of a cooperative kernel. The vectors are kernels, small
// enough for one block; the images are transformed by all of them.
#pragma once

#include "factored.cuh"
#include "launch.cuh"
#include "masked_kernel.hpp"
#include "plane_passes.cuh"

namespace latentdem::cuda {

struct KernelSolve {
    MaskedKernel problem;
    Planes planes;
    float2 *spectra;                        // batch x images x height x columns
    float2 *spectrum;                       // batch x height x columns
    float2 *window;                         // batch x size x columns: transformed rows of a kernel
    float *power;                           // batch x height x columns, without a factor
    float *direction, *conditioned, *image; // batch x size x size
    Sample *samples;                        // batch
};

// The passes of the solver, for one block.
class KernelSolver {
  public:
    __device__ KernelSolver(const KernelSolve &solve, float2 *memory)
        : s(solve), p(solve.problem), g(solve.planes.grid), passes(solve.planes, memory) {}

    __device__ void solve() {
        start();
        for (int done = 0;; ++done) {
            condition(done > 0);
            if (done == p.iterations || !some_active(s.samples, p.batch))
                break;
            multiply();
        }
    }

  private:
    const KernelSolve &s;
    const MaskedKernel &p;
    const Grid &g;
    PlanePasses passes;

    __device__ bool active(std::int64_t image) const { return s.samples[image].active != 0; }

    __device__ int points() const { return p.size * p.size; }
    __device__ float mask(std::int64_t image, int row, int column) const {
        return p.mask[((p.masks == 1 ? 0 : image) * g.height + row) * g.width + column];
    }
    __device__ std::int64_t number(std::int64_t plane, int row, int column) const {
        return (plane * g.height + row) * g.columns + column;
    }
    // The row or column of a kernel that lies in that of the grid, if it is less than `size`.
    __device__ int inside(int line, int side) const {
        const int moved = line + p.size / 2;
        return moved < side ? moved : moved - side;
    }

    // function(image, first column) for columns of a half spectrum that all images of an active sample share.
    template <class Function>
    __device__ void each_active_columns(Function function) {
        const int groups = s.planes.column_groups;
        for (std::int64_t unit = blockIdx.x; unit < p.batch * groups; unit += gridDim.x)
            if (active(unit / groups))
                function(unit / groups, static_cast<int>(unit % groups) * kUnitColumns);
    }
    template <class Function>
    __device__ void each_of(std::int64_t image, int first, Function function) {
        for (std::int64_t n = 0; n < p.images; ++n)
            function(Unit{image, image * p.images + n, first, 0});
    }

    // Spectra of x and of the windowed x, and the vectors to start from.
    __device__ void start() {
        const auto x = [&](const Unit &unit, int row, int column) {
            return p.x[(unit.plane * g.height + row) * g.width + column];
        };
        passes.each_rows(
            [&](const Unit &unit) { passes.to_rows(unit, [&](int row, int column) { return x(unit, row, column); }); });
        passes.each_image([&](std::int64_t image) {
            for (int i = static_cast<int>(threadIdx.x); i < points(); i += kThreads) {
                p.solution[image * points() + i] = 0.0f;
                p.residual[image * points() + i] = p.right[image * points() + i];
            }
            if (threadIdx.x == 0)
                s.samples[image] = {static_cast<float>(p.allowed), 0.0f, 0.0f, 0.0f, 1};
        });
        LATENTDEM_GRID_BARRIER();
        passes.each_columns([&](const Unit &unit) {
            Lines<kUnitColumns> lines = passes.from_columns(unit);
            passes.each_number(unit.first, lines, [&](int row, int column, float2 value) {
                s.spectra[number(unit.plane, row, column)] = value;
            });
        });
        LATENTDEM_GRID_BARRIER();
        if (p.factor)
            return;
        passes.each_rows([&](const Unit &unit) {
            passes.to_rows(
                unit, [&](int row, int column) { return sqrtf(mask(unit.image, row, column)) * x(unit, row, column); });
        });
        LATENTDEM_GRID_BARRIER();
        each_active_columns([&](std::int64_t image, int first) {
            each_of(image, first, [&](const Unit &unit) {
                const bool begin = unit.plane == image * p.images;
                Lines<kUnitColumns> lines = passes.from_columns(unit);
                passes.each_number(first, lines, [&](int row, int column, float2 value) {
                    float &power = s.power[number(image, row, column)]; // of the same thread for every image
                    power = (begin ? p.weight[image] : power) + norm2(value);
                });
            });
        });
        LATENTDEM_GRID_BARRIER();
    }

    // The numbers of `lines` back along columns, of which a kernel's rows are kept.
    __device__ void to_window(std::int64_t image, int first, Lines<kUnitColumns> lines) {
        lines.transform<true>(g.down);
        passes.each_number(first, lines, [&](int row, int column, float2 value) {
            const int inner = inside(row, g.height);
            if (inner < p.size)
                s.window[(image * p.size + inner) * g.columns + column] = value;
        });
    }

    // What is in the window: use(image, point of the kernel, value) returns a term of the sum <.,.>.
    template <class Use>
    __device__ void from_window(Use use) {
        const int groups = window_groups();
        for (std::int64_t unit = blockIdx.x; unit < p.batch * groups; unit += gridDim.x) {
            const std::int64_t image = unit / groups;
            if (!active(image))
                continue;
            const int part = static_cast<int>(unit % groups), first = part * kLines;
            float sum = 0.0f;
            inverse_lines(
                passes.block.across(), g.across,
                [&](int line, int frequency) {
                    return first + line < p.size ? s.window[(image * p.size + first + line) * g.columns + frequency]
                                                 : float2{0.0f, 0.0f};
                },
                [&](int line, int column, float value) {
                    const int inner = inside(column, g.width);
                    if (first + line < p.size && inner < p.size)
                        sum += use(image, image * points() + (first + line) * p.size + inner, value);
                });
            passes.put_sum(0, image, part, sum);
        }
        LATENTDEM_GRID_BARRIER();
    }
    __device__ int window_groups() const { return units_of(p.size, kLines); }

    __device__ Lines<kUnitColumns> transfer(const float *kernels, std::int64_t image, int first) {
        Lines<kUnitColumns> lines = passes.block.columns();
        kernel_columns(lines, passes.block.across_roots(), g, kernels + image * points(), p.size, first);
        return lines;
    }

    // (X^T M X + a) direction, and the step.
    __device__ void multiply() {
        each_active_columns([&](std::int64_t image, int first) {
            Lines<kUnitColumns> lines = transfer(s.direction, image, first);
            passes.each_number(first, lines, [&](int row, int column, float2 value) {
                s.spectrum[number(image, row, column)] = passes.scale() * value;
            });
            each_of(image, first, [&](const Unit &unit) {
                Lines<kUnitColumns> product = passes.block.columns();
                passes.each_number(first, product, [&](int row, int column, float2 &value) {
                    value = s.spectrum[number(image, row, column)] * s.spectra[number(unit.plane, row, column)];
                });
                passes.to_columns(unit, product);
            });
        });
        LATENTDEM_GRID_BARRIER();
        passes.each_rows([&](const Unit &unit) {
            if (active(unit.image))
                passes.change_rows(
                    unit, [&](int row, int column, float value) { return mask(unit.image, row, column) * value; });
        });
        LATENTDEM_GRID_BARRIER();
        each_active_columns([&](std::int64_t image, int first) {
            each_of(image, first, [&](const Unit &unit) {
                const bool begin = unit.plane == image * p.images;
                Lines<kUnitColumns> lines = passes.from_columns(unit);
                passes.each_number(first, lines, [&](int row, int column, float2 value) {
                    float2 &sum = s.spectrum[number(image, row, column)];
                    const float2 term = conj(s.spectra[number(unit.plane, row, column)]) * value;
                    sum = begin ? term : sum + term;
                });
            });
            Lines<kUnitColumns> lines = passes.block.columns();
            passes.each_number(first, lines, [&](int row, int column, float2 &value) {
                value = passes.scale() * s.spectrum[number(image, row, column)];
            });
            to_window(image, first, lines);
        });
        LATENTDEM_GRID_BARRIER();
        from_window([&](std::int64_t image, std::int64_t at, float value) {
            s.image[at] = value + p.weight[image] * s.direction[at];
            return s.direction[at] * s.image[at];
        });
        passes.each_image([&](std::int64_t image) {
            if (!active(image))
                return;
            const float step = Sample::quotient(s.samples[image].power, passes.total(0, image, window_groups()));
            for (std::int64_t i = image * points() + threadIdx.x; i < (image + 1) * points(); i += kThreads) {
                p.solution[i] += step * s.direction[i];
                p.residual[i] -= step * s.image[i];
            }
        });
        LATENTDEM_GRID_BARRIER();
    }

    // The preconditioned residual, whether that is enough, and the next direction.
    __device__ void condition(bool moved) {
        if (!p.factor) {
            each_active_columns([&](std::int64_t image, int first) {
                Lines<kUnitColumns> lines = transfer(p.residual, image, first);
                passes.each_number(first, lines, [&](int row, int column, float2 &value) {
                    value = passes.scale() / s.power[number(image, row, column)] * value;
                });
                to_window(image, first, lines);
            });
            LATENTDEM_GRID_BARRIER();
            from_window([&](std::int64_t, std::int64_t at, float value) {
                s.conditioned[at] = value;
                return p.residual[at] * value;
            });
        }
        passes.each_image([&](std::int64_t image) {
            if (!active(image))
                return;
            const float left = p.factor ? solve_factored(image) : passes.total(0, image, window_groups());
            if (threadIdx.x == 0)
                s.samples[image].go_on(left, moved);
            __syncthreads();
            const float ratio = s.samples[image].ratio;
            for (std::int64_t i = image * points() + threadIdx.x; i < (image + 1) * points(); i += kThreads)
                s.direction[i] = moved ? s.conditioned[i] + ratio * s.direction[i] : s.conditioned[i];
        });
        LATENTDEM_GRID_BARRIER();
    }

    __device__ float solve_factored(std::int64_t image) {
        const std::int64_t count = points(), first = image * count;
        Factored(passes.block.numbers(), p.factor + first * count, points())
            .solve(p.residual + first, s.conditioned + first);
        __syncthreads();
        float sum = 0.0f;
        for (std::int64_t i = first + threadIdx.x; i < first + count; i += kThreads)
            sum += p.residual[i] * s.conditioned[i];
        return passes.block.sum(sum);
    }
};

} // namespace latentdem::cuda
