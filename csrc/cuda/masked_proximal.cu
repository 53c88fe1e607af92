// All conjugate gradients of masked_proximal in one cooperative kernel. Its blocks share the work of a pass by units,
// rows or columns of a plane, and wait for each other after it. Sums are added up per unit and then by one block, in a
// fixed order, so that the result does not depend on how many blocks there are.
#include "masked_proximal.hpp"

#include "frame_passes.cuh"
#include "launch.cuh"
#include "workspace.hpp"

namespace latentdem::cuda {
namespace {

// What a sample's iteration goes by.
struct Sample {
    float allowed;  // upper limit of `power` of a converged sample
    float diagonal; // inverse of the diagonal of T
    float power;    // <residual, conditioned>
    float step, ratio;
    int active;
};

enum Sum { kDot, kCorrection, kSpectrum, kEigenvalues, kHoles, kSums };

struct Solve {
    MaskedProximal problem;
    Grid grid;
    FrameWork frame;
    float2 *otf;                                                // batch x height x columns
    float2 *rows, *spectrum;                                    // batch x channels x height x columns
    float *change, *residual, *direction, *conditioned, *image; // batch x channels x height x width
    float *sums;                                                // kSums x batch x parts
    Sample *samples;                                            // batch
    int row_groups, column_groups, parts;                       // of a plane, of a plane, of an image
};

__global__ void __launch_bounds__(kThreads) otf_kernel(const __grid_constant__ Solve s) {
    LATENTDEM_DYNAMIC_SHARED(float2, memory);
    GridBlock block(s.grid, memory);
    const std::int64_t image = blockIdx.y;
    const int first = static_cast<int>(blockIdx.x) * kUnitColumns;
    Lines<kUnitColumns> lines = block.columns();
    kernel_columns(lines, block.across_roots(), s.grid, s.problem.kernel + image * s.problem.size * s.problem.size,
                   s.problem.size, first);
    float2 *const otf = s.otf + image * s.grid.height * s.grid.columns + first;
    each_column_point(s.grid.height, [&](int row, int j) {
        if (first + j < s.grid.columns)
            otf[row * s.grid.columns + j] = lines.at(row, j);
    });
}

// The passes of the solver, for one block.
class Solver {
  public:
    __device__ Solver(const Solve &solve, float2 *memory)
        : s(solve), p(solve.problem), g(solve.grid), block(g, memory) {}

    __device__ void solve() {
        start();
        for (int done = 0;; ++done) {
            condition(done > 0);
            if (done == p.iterations || !some_active())
                break;
            multiply(done == 0);
        }
        finish();
    }

  private:
    const Solve &s;
    const MaskedProximal &p;
    const Grid &g;
    GridBlock block;

    // A group of rows or columns of a plane.
    struct Unit {
        std::int64_t image, plane;
        int first; // row or column
        std::int64_t part;
    };

    template <class Function>
    __device__ void each_unit(int groups, int size, Function function) {
        const std::int64_t of_image = p.channels * groups;
        for (std::int64_t unit = blockIdx.x; unit < p.batch * of_image; unit += gridDim.x) {
            const std::int64_t plane = unit / groups;
            function(Unit{plane / p.channels, plane, static_cast<int>(unit % groups) * size, unit % of_image});
        }
    }
    template <class Function>
    __device__ void each_rows(Function function) {
        each_unit(s.row_groups, kLines, function);
    }
    template <class Function>
    __device__ void each_columns(Function function) {
        each_unit(s.column_groups, kUnitColumns, function);
    }
    // One block for each sample.
    template <class Function>
    __device__ void each_sample(Function function) {
        for (std::int64_t image = blockIdx.x; image < p.batch; image += gridDim.x)
            function(image, s.samples[image]);
    }

    __device__ bool active(std::int64_t image) const { return s.samples[image].active != 0; }

    __device__ bool some_active() const {
        bool some = false;
        for (std::int64_t image = 0; image < p.batch; ++image)
            some = some || active(image);
        return some;
    }

    __device__ bool is_gap(std::int64_t image, int row, int column) const {
        return !(p.mask[((p.masks == 1 ? 0 : image) * g.height + row) * g.width + column] > 0.0f);
    }
    __device__ std::int64_t point(std::int64_t plane, int row, int column) const {
        return (plane * g.height + row) * g.width + column;
    }
    __device__ float2 *row_of(const Unit &unit, int line) const {
        return s.rows + (unit.plane * g.height + unit.first + line) * g.columns;
    }

    __device__ void put(Sum kind, const Unit &unit, float value) {
        value = block.sum(value);
        if (threadIdx.x == 0)
            s.sums[(kind * p.batch + unit.image) * s.parts + unit.part] = value;
    }
    __device__ float total(Sum kind, std::int64_t image, int groups) {
        const float *const sums = s.sums + (kind * p.batch + image) * s.parts;
        float sum = 0.0f;
        for (int i = static_cast<int>(threadIdx.x); i < p.channels * groups; i += kThreads)
            sum += sums[i];
        return block.sum(sum);
    }

    // Real rows, value(line, column), to their transforms.
    template <class Value>
    __device__ void to_rows(const Unit &unit, Value value) {
        forward_lines(
            block.across(), g.across,
            [&](int line, int column) { return unit.first + line < g.height ? value(line, column) : 0.0f; },
            [&](int line, int frequency, float2 number) { store_row(unit, line, frequency, number); });
    }
    __device__ void store_row(const Unit &unit, int line, int frequency, float2 number) {
        if (unit.first + line < g.height)
            row_of(unit, line)[frequency] = number;
    }
    __device__ float2 load_row(const Unit &unit, int line, int frequency) {
        return unit.first + line < g.height ? row_of(unit, line)[frequency] : float2{0.0f, 0.0f};
    }
    // And back: use(line, column, value).
    template <class Use>
    __device__ void from_rows(const Unit &unit, Use use) {
        inverse_lines(
            block.across(), g.across, [&](int line, int frequency) { return load_row(unit, line, frequency); },
            [&](int line, int column, float value) {
                if (unit.first + line < g.height)
                    use(line, column, value);
            });
    }

    // Transformed rows to whole spectra; of every number, change(row, column, number) is transformed back and scaled.
    template <class Change>
    __device__ void through_columns(const Unit &unit, Change change) {
        Lines<kUnitColumns> lines = block.columns();
        float2 *const rows = s.rows + unit.plane * g.height * g.columns + unit.first;
        each_column_point(g.height, [&](int row, int j) {
            lines.at(row, j) = unit.first + j < g.columns ? rows[row * g.columns + j] : float2{0.0f, 0.0f};
        });
        lines.transform<false>(g.down);
        const float scale = 1.0f / (static_cast<float>(g.height) * static_cast<float>(g.width));
        each_column_point(g.height, [&](int row, int j) {
            if (unit.first + j < g.columns)
                lines.at(row, j) = scale * change(row, unit.first + j, lines.at(row, j));
        });
        lines.transform<true>(g.down);
        each_column_point(g.height, [&](int row, int j) {
            if (unit.first + j < g.columns)
                rows[row * g.columns + j] = lines.at(row, j);
        });
    }
    __device__ float2 transfer(const Unit &unit, int row, int column) const {
        return s.otf[(unit.image * g.height + row) * g.columns + column];
    }
    __device__ float2 &spectrum(const Unit &unit, int row, int column) const {
        return s.spectrum[(unit.plane * g.height + row) * g.columns + column];
    }

    // The start, the residual of it and what is allowed to be left.
    __device__ void start() {
        each_rows([&](const Unit &unit) {
            to_rows(unit, [&](int line, int column) { return p.x0[point(unit.plane, unit.first + line, column)]; });
        });
        LATENTDEM_GRID_BARRIER();
        each_columns([&](const Unit &unit) {
            through_columns(unit, [&](int row, int column, float2 number) {
                return spectrum(unit, row, column) = transfer(unit, row, column) * number;
            });
        });
        LATENTDEM_GRID_BARRIER();
        each_rows([&](const Unit &unit) { fill_rows(unit); });
        LATENTDEM_GRID_BARRIER();
        each_columns([&](const Unit &unit) { residual_columns(unit); });
        LATENTDEM_GRID_BARRIER();
        each_rows([&](const Unit &unit) {
            from_rows(unit, [&](int line, int column, float value) {
                const int row = unit.first + line;
                const std::int64_t at = point(unit.plane, row, column);
                s.change[at] = 0.0f;
                s.residual[at] = is_gap(unit.image, row, column) ? -value : 0.0f;
            });
        });
        each_sample([&](std::int64_t image, Sample &sample) { allow(image, sample); });
        LATENTDEM_GRID_BARRIER();
    }

    // The measurement with the first fill, to the transforms of its rows.
    __device__ void fill_rows(const Unit &unit) {
        float holes = 0.0f;
        const int *const columns = s.frame.places + g.height;
        const auto filled = [&](int line, int column, float blurred) {
            const int row = unit.first + line;
            if (row >= g.height)
                return 0.0f;
            const std::int64_t at = point(unit.plane, row, column);
            const bool gap = is_gap(unit.image, row, column);
            const float start = gap ? (p.fill ? p.fill[at] : blurred) : 0.0f;
            holes += gap && s.frame.places[row] < 0 && columns[column] < 0 ? 1.0f : 0.0f;
            p.filled[at] = start;
            return gap ? start : p.y[at];
        };
        change_lines(
            block.across(), g.across, [&](int line, int frequency) { return load_row(unit, line, frequency); }, filled,
            [&](int line, int frequency, float2 number) { store_row(unit, line, frequency, number); });
        put(kHoles, unit, holes);
    }

    // The transform of y - K x0, filled, and T of it, transformed back along columns.
    __device__ void residual_columns(const Unit &unit) {
        const float rho = p.rho[unit.image];
        float correction = 0.0f, power = 0.0f, eigenvalues = 0.0f;
        through_columns(unit, [&](int row, int column, float2 number) {
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
        put(kCorrection, unit, correction);
        put(kSpectrum, unit, power);
        put(kEigenvalues, unit, eigenvalues);
    }

    __device__ void allow(std::int64_t image, Sample &sample) {
        const float correction = total(kCorrection, image, s.column_groups);
        const float power = total(kSpectrum, image, s.column_groups);
        const float eigenvalues = total(kEigenvalues, image, s.column_groups); // once in every channel
        const float holes = total(kHoles, image, s.row_groups);
        const float area = static_cast<float>(g.height) * static_cast<float>(g.width);
        const float channels = static_cast<float>(p.channels);
        const float relative = static_cast<float>(p.tolerance / (holes > 0.0f ? p.caution_with_holes : p.caution));
        const float rounding = static_cast<float>(p.rounding);
        const float allowed = p.rho[image] * relative * relative * (channels * area + correction / area);
        const float least = rounding * rounding * (power / area);
        if (threadIdx.x == 0)
            sample = {allowed < least ? least : allowed, area * channels / eigenvalues, 0.0f, 0.0f, 0.0f, 1};
    }

    // N T N direction, and the step.
    __device__ void multiply(bool first) {
        each_rows([&](const Unit &unit) {
            if (!active(unit.image))
                return;
            const float ratio = s.samples[unit.image].ratio;
            to_rows(unit, [&](int line, int column) {
                const int row = unit.first + line;
                if (!is_gap(unit.image, row, column))
                    return 0.0f;
                const std::int64_t at = point(unit.plane, row, column);
                return s.direction[at] = first ? s.conditioned[at] : s.conditioned[at] + ratio * s.direction[at];
            });
        });
        LATENTDEM_GRID_BARRIER();
        each_columns([&](const Unit &unit) {
            if (!active(unit.image))
                return;
            const float rho = p.rho[unit.image];
            through_columns(unit, [&](int row, int column, float2 number) {
                return rho / (norm2(transfer(unit, row, column)) + rho) * number;
            });
        });
        LATENTDEM_GRID_BARRIER();
        each_rows([&](const Unit &unit) {
            if (!active(unit.image))
                return;
            float dot = 0.0f;
            from_rows(unit, [&](int line, int column, float value) {
                const int row = unit.first + line;
                if (!is_gap(unit.image, row, column))
                    return;
                const std::int64_t at = point(unit.plane, row, column);
                s.image[at] = value;
                dot += s.direction[at] * value;
            });
            put(kDot, unit, dot);
        });
        LATENTDEM_GRID_BARRIER();
        each_sample([&](std::int64_t image, Sample &sample) {
            if (!sample.active)
                return;
            const float inner = total(kDot, image, s.row_groups);
            if (threadIdx.x == 0)
                sample.step = ratio_of(sample.power, inner);
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
        bands_to_frequencies(s.frame, g, block, is_active, residual);
        LATENTDEM_GRID_BARRIER();
        solve_bands(s.frame, g, block, is_active);
        LATENTDEM_GRID_BARRIER();
        bands_to_points(s.frame, g, block, is_active);
        LATENTDEM_GRID_BARRIER();
        each_rows([&](const Unit &unit) {
            if (!active(unit.image))
                return;
            const Sample &sample = s.samples[unit.image];
            float dot = 0.0f;
            each_point(kLines, g.width, [&](int line, int column) {
                const int row = unit.first + line;
                if (row >= g.height || !is_gap(unit.image, row, column))
                    return;
                const std::int64_t at = point(unit.plane, row, column);
                const int row_place = s.frame.places[row], column_place = s.frame.places[g.height + column];
                const float left = residual(unit.plane, row, column);
                const float solved = row_place < 0 && column_place < 0
                                         ? sample.diagonal * left
                                         : bands_at(s.frame, g, unit.plane, row, column, row_place, column_place);
                if (moved) {
                    s.residual[at] = left;
                    s.change[at] += sample.step * s.direction[at];
                }
                s.conditioned[at] = solved;
                dot += left * solved;
            });
            put(kDot, unit, dot);
        });
        LATENTDEM_GRID_BARRIER();
        each_sample([&](std::int64_t image, Sample &sample) {
            if (!sample.active)
                return;
            const float power = total(kDot, image, s.row_groups);
            if (threadIdx.x == 0) {
                sample.ratio = moved ? ratio_of(power, sample.power) : 0.0f;
                sample.power = power;
                sample.active = power > sample.allowed;
            }
        });
        LATENTDEM_GRID_BARRIER();
    }

    // The image that follows from the fill.
    __device__ void finish() {
        each_rows([&](const Unit &unit) {
            to_rows(unit, [&](int line, int column) {
                const int row = unit.first + line;
                if (!is_gap(unit.image, row, column))
                    return 0.0f;
                const std::int64_t at = point(unit.plane, row, column);
                p.filled[at] += s.change[at];
                return s.change[at];
            });
        });
        LATENTDEM_GRID_BARRIER();
        each_columns([&](const Unit &unit) {
            const float rho = p.rho[unit.image];
            through_columns(unit, [&](int row, int column, float2 number) {
                const float2 h = transfer(unit, row, column);
                return conj(h) * (spectrum(unit, row, column) + number) / (norm2(h) + rho);
            });
        });
        LATENTDEM_GRID_BARRIER();
        each_rows([&](const Unit &unit) {
            from_rows(unit, [&](int line, int column, float value) {
                const std::int64_t at = point(unit.plane, unit.first + line, column);
                p.x[at] = p.x0[at] + value;
            });
        });
    }

    // Of non-negative numbers; 0 / 0, as in a solved sample, gives 0.
    __device__ static float ratio_of(float a, float b) {
        constexpr float tiny = 1.17549435e-38f;
        return a / (b < tiny ? tiny : b);
    }
};

__global__ void __launch_bounds__(kThreads, 2) solve_kernel(const __grid_constant__ Solve s) {
    LATENTDEM_DYNAMIC_SHARED(float2, memory);
    Solver(s, memory).solve();
}

// The solver's arrays in the workspace, and those of the preconditioner that fills them.
std::size_t arrange(const MaskedProximal &p, Solve &s, FramePreconditioner &frame) {
    s.problem = p;
    if (!make_grid(p.height, p.width, s.grid))
        return 0;
    s.row_groups = units_of(p.height, kLines);
    s.column_groups = units_of(s.grid.columns, kUnitColumns);
    s.parts = static_cast<int>(p.channels) * (s.row_groups > s.column_groups ? s.row_groups : s.column_groups);

    Workspace workspace(p.workspace);
    const std::size_t batch = static_cast<std::size_t>(p.batch), planes = batch * static_cast<std::size_t>(p.channels);
    const std::size_t height = static_cast<std::size_t>(p.height), width = static_cast<std::size_t>(p.width);
    const std::size_t half = height * static_cast<std::size_t>(s.grid.columns);
    s.otf = workspace.take<float2>(batch * half);
    for (float2 **const array : {&s.rows, &s.spectrum})
        *array = workspace.take<float2>(planes * half);
    for (float **const array : {&s.change, &s.residual, &s.direction, &s.conditioned, &s.image})
        *array = workspace.take<float>(planes * height * width);
    s.sums = workspace.take<float>(kSums * batch * static_cast<std::size_t>(s.parts));
    s.samples = workspace.take<Sample>(batch);

    frame = {p.mask, s.otf, p.rho, nullptr, nullptr, nullptr, {}, p.batch, p.masks, p.height, p.width, p.least};
    frame.measured = workspace.take<int>(height + width);
    frame.places = workspace.take<int>(height + width);
    frame.bands = workspace.take<FrameBand>(2);
    s.frame = {frame.bands, frame.places, {}, {}, {}, p.batch, p.channels};
    for (int band = 0; band < 2; ++band) {
        const std::size_t points = band == 0 ? width : height, frequencies = points / 2 + 1;
        s.frame.inverses[band] = frame.inverses[band] = workspace.take<float>(batch * frequencies * kBand * kBand);
        s.frame.spectra[band] = workspace.take<float2>(planes * frequencies * kBand);
        s.frame.solutions[band] = workspace.take<float>(planes * points * kBand);
    }
    return workspace.bytes();
}

} // namespace

bool has_grid(int height, int width) {
    Grid grid;
    return make_grid(height, width, grid);
}

std::size_t workspace_bytes(const MaskedProximal &problem) {
    Solve solve;
    FramePreconditioner frame;
    return arrange(problem, solve, frame);
}

cudaError_t launch(const MaskedProximal &problem, cudaStream_t stream) {
    Solve solve;
    FramePreconditioner frame;
    if (!arrange(problem, solve, frame) || problem.size > problem.height || problem.size > problem.width)
        return cudaErrorInvalidValue;
    if (problem.batch * problem.channels == 0)
        return cudaSuccess;
    const std::size_t bytes = grid_bytes(solve.grid);
    cudaError_t error =
        cudaFuncSetAttribute(otf_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    if (error != cudaSuccess)
        return error;
    LATENTDEM_LAUNCH(otf_kernel, dim3(static_cast<unsigned>(solve.column_groups), static_cast<unsigned>(problem.batch)),
                     dim3(kThreads), bytes, stream, solve);
    error = launch(frame, stream);
    if (error != cudaSuccess)
        return error;
    const int groups = solve.row_groups > solve.column_groups ? solve.row_groups : solve.column_groups;
    return launch_cooperative(solve_kernel, solve, problem.batch * problem.channels * groups, kThreads, bytes, stream);
}

} // namespace latentdem::cuda
