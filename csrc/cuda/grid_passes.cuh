// Passes over planes of any size, of which a block of kThreads transforms some rows or columns at a time: what the
// cooperative kernels of photographs have in common. What becomes of a point before or after a transform is a function
// of the caller's. A half spectrum has width / 2 + 1 columns.
#pragma once

#include "block_sum.cuh"
#include "line_fft.cuh"

namespace latentdem::cuda {

constexpr int kPairs = 2;          // of real lines that a block transforms at a time
constexpr int kLines = 2 * kPairs; // those lines
constexpr int kUnitColumns = 4;    // columns of a half spectrum at a time: a sector of global memory
constexpr int kLeastNumbers = 336; // of such a piece of memory: see factored.cuh
constexpr int kLongest = 1260;     // side: a block of compute capability 8.6 and 8.9 has 99 KB of shared memory

struct Grid {
    int height = 0, width = 0, columns = 0;
    LinePlan across, down; // transforms along a row and along a column
};

__host__ __device__ constexpr int units_of(int whole, int part) { return (whole + part - 1) / part; }

// Numbers in each of the two pieces of memory that lines are transformed in.
__host__ __device__ inline int line_numbers(const Grid &grid) {
    const int numbers = (grid.height > grid.width ? grid.height : grid.width) * kUnitColumns;
    return numbers > kLeastNumbers ? numbers : kLeastNumbers;
}

inline std::size_t grid_bytes(const Grid &grid) {
    const int numbers = grid.height + grid.width + 2 * line_numbers(grid);
    return static_cast<std::size_t>(numbers) * sizeof(float2) + kThreads / 32 * sizeof(float);
}

// False where a side is too long or has a prime factor that is too large.
inline bool make_grid(int height, int width, Grid &grid) {
    grid.height = height;
    grid.width = width;
    grid.columns = width / 2 + 1;
    return height > 0 && width > 0 && height <= kLongest && width <= kLongest && make_plan(width, grid.across) &&
           make_plan(height, grid.down);
}

// function(line, n) for all points of some lines, neighbouring threads at neighbouring points.
template <class Function>
__device__ __forceinline__ void each_point(int lines, int points, Function function) {
#pragma unroll 2
    for (int i = static_cast<int>(threadIdx.x); i < lines * points; i += kThreads)
        function(i / points, i % points);
}

// function(row, j) for all points of kUnitColumns neighbouring columns.
template <class Function>
__device__ __forceinline__ void each_column_point(int height, Function function) {
#pragma unroll 2
    for (int i = static_cast<int>(threadIdx.x); i < kUnitColumns * height; i += kThreads)
        function(i / kUnitColumns, i % kUnitColumns);
}

// The memory and the transforms of a block.
class GridBlock {
  public:
    // Every thread of the block makes one.
    __device__ GridBlock(const Grid &grid, float2 *memory) {
        across_roots_ = memory;
        down_roots_ = memory + grid.width;
        values_ = down_roots_ + grid.height;
        spare_ = values_ + line_numbers(grid);
        sums_ = reinterpret_cast<float *>(spare_ + line_numbers(grid));
        fill_roots(across_roots_, grid.width);
        fill_roots(down_roots_, grid.height);
    }

    // The sum over the block, the same in every thread.
    __device__ float sum(float value) {
        __syncthreads(); // the last one has been read
        return block_sum<kThreads>(value, sums_);
    }

    __device__ const float2 *across_roots() const { return across_roots_; }

    // 4 kLeastNumbers numbers, also after what was there before has been read.
    __device__ float *numbers() {
        __syncthreads();
        return reinterpret_cast<float *>(values_);
    }

    // Memory of kUnitColumns columns. It waits for what was there before to have been read.
    __device__ Lines<kUnitColumns> columns() {
        __syncthreads();
        return {values_, spare_, down_roots_};
    }

    // Memory of kPairs lines along rows or along columns.
    __device__ Lines<kPairs> across() {
        __syncthreads();
        return {values_, spare_, across_roots_};
    }
    __device__ Lines<kPairs> down() {
        __syncthreads();
        return {values_, spare_, down_roots_};
    }

  private:
    float2 *across_roots_, *down_roots_, *values_, *spare_;
    float *sums_;
};

// store(line, frequency, number): the half spectra of kLines real lines, of which a pair is a complex line of `lines`.
template <class Store>
__device__ __forceinline__ void forward_points(Lines<kPairs> &lines, const LinePlan &plan, Store store) {
    lines.template transform<false>(plan);
    each_point(kPairs, plan.points / 2 + 1, [&](int pair, int n) {
        const float2 z = lines.at(n, pair), w = lines.at(n == 0 ? 0 : plan.points - n, pair);
        store(2 * pair, n, float2{0.5f * (z.x + w.x), 0.5f * (z.y - w.y)});
        store(2 * pair + 1, n, float2{0.5f * (z.y + w.y), 0.5f * (w.x - z.x)});
    });
}

// The same of the points load(line, n).
template <class Load, class Store>
__device__ __forceinline__ void forward_lines(Lines<kPairs> lines, const LinePlan &plan, Load load, Store store) {
    each_point(kPairs, plan.points,
               [&](int pair, int n) { lines.at(n, pair) = {load(2 * pair, n), load(2 * pair + 1, n)}; });
    forward_points(lines, plan, store);
}

// Pairs of real lines with the half spectra load(line, frequency), without a scale.
template <class Load>
__device__ __forceinline__ void inverse_points(Lines<kPairs> &lines, const LinePlan &plan, Load load) {
    each_point(kPairs, plan.points / 2 + 1, [&](int pair, int n) {
        const float2 p = load(2 * pair, n), q = load(2 * pair + 1, n);
        if (n == 0 || 2 * n == plan.points) { // the numbers of real lines are real here
            lines.at(n, pair) = {p.x, q.x};
        } else {
            lines.at(n, pair) = {p.x - q.y, p.y + q.x};
            lines.at(plan.points - n, pair) = {p.x + q.y, q.x - p.y};
        }
    });
    lines.template transform<true>(plan);
}

// The same to store(line, n, value).
template <class Load, class Store>
__device__ __forceinline__ void inverse_lines(Lines<kPairs> lines, const LinePlan &plan, Load load, Store store) {
    inverse_points(lines, plan, load);
    each_point(kPairs, plan.points, [&](int pair, int n) {
        const float2 value = lines.at(n, pair);
        store(2 * pair, n, value.x);
        store(2 * pair + 1, n, value.y);
    });
}

// The inverse, what change(line, n, value) makes of every point, and the transform of that.
template <class Load, class Change, class Store>
__device__ __forceinline__ void change_lines(Lines<kPairs> lines, const LinePlan &plan, Load load, Change change,
                                             Store store) {
    inverse_points(lines, plan, load);
    each_point(kPairs, plan.points, [&](int pair, int n) {
        float2 &value = lines.at(n, pair);
        value = {change(2 * pair, n, value.x), change(2 * pair + 1, n, value.y)};
    });
    forward_points(lines, plan, store);
}

// The transfer function of a kernel (size x size) in kUnitColumns columns from `first` on: rows by direct sums.
__device__ __forceinline__ void kernel_columns(Lines<kUnitColumns> &lines, const float2 *across_roots, const Grid &grid,
                                               const float *kernel, int size, int first) {
    each_column_point(grid.height, [&](int row, int j) {
        const int column = first + j, i = row + size / 2 < grid.height ? row + size / 2 : row + size / 2 - grid.height;
        float2 sum{0.0f, 0.0f};
        if (column < grid.columns && i < size) {
            // Point (i, n) of the kernel lies at (i - size / 2, n - size / 2), modulo the sides.
            int turn = static_cast<int>(static_cast<std::int64_t>(column) * (grid.width - size / 2) % grid.width);
            for (int n = 0; n < size; ++n) {
                sum = sum + kernel[i * size + n] * across_roots[turn];
                turn += column;
                turn -= turn < grid.width ? 0 : grid.width;
            }
        }
        lines.at(row, j) = sum;
    });
    lines.template transform<false>(grid.down);
}

} // namespace latentdem::cuda
