// How the blocks of a cooperative kernel share the passes over the images of a batch, and what conjugate gradients of
// its samples go by. Sums are added up per unit of a pass and then by one block, in a fixed order, so that a result
// does not depend on how many blocks there are.
#pragma once

#include "grid_passes.cuh"

namespace latentdem::cuda {

struct Planes {
    Grid grid;
    std::int64_t batch, channels;
    float2 *rows;                  // batch x channels x height x columns: transforms of rows
    float *sums;                   // `kinds` x batch x parts
    int row_groups, column_groups; // units of a plane
    int row_parts, column_parts;   // of an image
    int parts;                     // of an image that sums have memory for
};

// kLines rows of a plane, or kUnitColumns columns of its half spectrum.
struct Unit {
    std::int64_t image, plane;
    int first;
    std::int64_t part; // of the image
};

inline Planes planes_of(const Grid &grid, std::int64_t batch, std::int64_t channels) {
    Planes planes{grid, batch, channels, nullptr, nullptr, 0, 0, 0, 0, 0};
    planes.row_groups = units_of(grid.height, kLines);
    planes.column_groups = units_of(grid.columns, kUnitColumns);
    planes.row_parts = static_cast<int>(channels) * planes.row_groups;
    planes.column_parts = static_cast<int>(channels) * planes.column_groups;
    planes.parts = planes.row_parts > planes.column_parts ? planes.row_parts : planes.column_parts;
    return planes;
}

// What the iteration of a sample goes by.
struct Sample {
    float allowed; // upper limit of `power` of a converged sample
    float power;   // <residual, preconditioned residual>
    float step, ratio;
    int active;

    // With the power that a step has left.
    __device__ void go_on(float left, bool moved) {
        ratio = moved ? quotient(left, power) : 0.0f;
        power = left;
        active = left > allowed;
    }

    // Of non-negative numbers; 0 / 0, as in a solved sample, gives 0.
    __device__ static float quotient(float a, float b) {
        constexpr float tiny = 1.17549435e-38f;
        return a / (b < tiny ? tiny : b);
    }
};

// Whether conjugate gradients go on for any sample.
__device__ inline bool some_active(const Sample *samples, std::int64_t batch) {
    bool some = false;
    for (std::int64_t image = 0; image < batch; ++image)
        some = some || samples[image].active != 0;
    return some;
}

// The part of a block in the passes.
class PlanePasses {
  public:
    GridBlock block;

    __device__ PlanePasses(const Planes &planes, float2 *memory)
        : block(planes.grid, memory), planes_(planes), grid_(planes.grid) {}

    // function(unit) for this block's units of all planes that are rows, or columns.
    template <class Function>
    __device__ void each_rows(Function function) {
        each_unit(planes_.row_groups, kLines, function);
    }
    template <class Function>
    __device__ void each_columns(Function function) {
        each_unit(planes_.column_groups, kUnitColumns, function);
    }

    // function(image): one block for each.
    template <class Function>
    __device__ void each_image(Function function) {
        for (std::int64_t image = blockIdx.x; image < planes_.batch; image += gridDim.x)
            function(image);
    }

    __device__ void put_sum(int kind, std::int64_t image, std::int64_t part, float value) {
        value = block.sum(value);
        if (threadIdx.x == 0)
            planes_.sums[(kind * planes_.batch + image) * planes_.parts + part] = value;
    }
    // The same in every thread of the block.
    __device__ float total(int kind, std::int64_t image, std::int64_t parts) {
        const float *const sums = planes_.sums + (kind * planes_.batch + image) * planes_.parts;
        float sum = 0.0f;
        for (int i = static_cast<int>(threadIdx.x); i < parts; i += kThreads)
            sum += sums[i];
        return block.sum(sum);
    }

    // Real rows, value(row, column), to their transforms.
    template <class Value>
    __device__ void to_rows(const Unit &unit, Value value) {
        forward_lines(
            block.across(), grid_.across,
            [&](int line, int column) {
                return unit.first + line < grid_.height ? value(unit.first + line, column) : 0.0f;
            },
            [&](int line, int frequency, float2 number) { store(unit, line, frequency, number); });
    }

    // And back, without a scale: use(row, column, value).
    template <class Use>
    __device__ void from_rows(const Unit &unit, Use use) {
        inverse_lines(
            block.across(), grid_.across, [&](int line, int frequency) { return load(unit, line, frequency); },
            [&](int line, int column, float value) {
                if (unit.first + line < grid_.height)
                    use(unit.first + line, column, value);
            });
    }

    // Back and forth: change(row, column, value) is transformed.
    template <class Change>
    __device__ void change_rows(const Unit &unit, Change change) {
        change_lines(
            block.across(), grid_.across, [&](int line, int frequency) { return load(unit, line, frequency); },
            [&](int line, int column, float value) {
                return unit.first + line < grid_.height ? change(unit.first + line, column, value) : 0.0f;
            },
            [&](int line, int frequency, float2 number) { store(unit, line, frequency, number); });
    }

    // function(row, column, number) for the numbers of `lines`, columns of half spectra from `first` on.
    template <class Function>
    __device__ void each_number(int first, Lines<kUnitColumns> &lines, Function function) {
        each_column_point(grid_.height, [&](int row, int j) {
            if (first + j < grid_.columns)
                function(row, first + j, lines.at(row, j));
        });
    }

    // The columns of the transformed rows, transformed.
    __device__ Lines<kUnitColumns> from_columns(const Unit &unit) {
        Lines<kUnitColumns> lines = block.columns();
        const float2 *const rows = column_of(unit);
        each_column_point(grid_.height, [&](int row, int j) {
            lines.at(row, j) = unit.first + j < grid_.columns ? rows[row * grid_.columns + j] : float2{0.0f, 0.0f};
        });
        lines.transform<false>(grid_.down);
        return lines;
    }

    // And back; the numbers have been scaled.
    __device__ void to_columns(const Unit &unit, Lines<kUnitColumns> lines) {
        lines.transform<true>(grid_.down);
        float2 *const rows = column_of(unit);
        each_number(unit.first, lines, [&](int row, int column, float2 number) {
            rows[row * grid_.columns + column - unit.first] = number;
        });
    }

    // Back and forth: change(row, column, number), without a scale, is transformed back.
    template <class Change>
    __device__ void change_columns(const Unit &unit, Change change) {
        Lines<kUnitColumns> lines = from_columns(unit);
        each_number(unit.first, lines,
                    [&](int row, int column, float2 &number) { number = scale() * change(row, column, number); });
        to_columns(unit, lines);
    }

    // Of a transform and its inverse.
    __device__ float scale() const { return 1.0f / area(); }
    __device__ float area() const { return static_cast<float>(grid_.height) * static_cast<float>(grid_.width); }

  private:
    const Planes &planes_;
    const Grid &grid_;

    template <class Function>
    __device__ void each_unit(int groups, int size, Function function) {
        const std::int64_t of_image = planes_.channels * groups;
        for (std::int64_t unit = blockIdx.x; unit < planes_.batch * of_image; unit += gridDim.x) {
            const std::int64_t plane = unit / groups;
            function(Unit{plane / planes_.channels, plane, static_cast<int>(unit % groups) * size, unit % of_image});
        }
    }

    __device__ float2 *row_of(const Unit &unit, int line) const {
        return planes_.rows + (unit.plane * grid_.height + unit.first + line) * grid_.columns;
    }
    __device__ float2 *column_of(const Unit &unit) const {
        return planes_.rows + unit.plane * grid_.height * grid_.columns + unit.first;
    }
    __device__ void store(const Unit &unit, int line, int frequency, float2 number) const {
        if (unit.first + line < grid_.height)
            row_of(unit, line)[frequency] = number;
    }
    __device__ float2 load(const Unit &unit, int line, int frequency) const {
        return unit.first + line < grid_.height ? row_of(unit, line)[frequency] : float2{0.0f, 0.0f};
    }
};

} // namespace latentdem::cuda
