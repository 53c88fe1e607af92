// The launches of masked_proximal: the transfer function, the preconditioner and the conjugate gradients.
#include "masked_proximal.hpp"

#include "proximal_solver.cuh"
#include "workspace.hpp"

namespace latentdem::cuda {
namespace {

__global__ void __launch_bounds__(kThreads) otf_kernel(const __grid_constant__ ProximalSolve s) {
    LATENTDEM_DYNAMIC_SHARED(float2, memory);
    GridBlock block(s.planes.grid, memory);
    const std::int64_t image = blockIdx.y;
    const int first = static_cast<int>(blockIdx.x) * kUnitColumns;
    Lines<kUnitColumns> lines = block.columns();
    kernel_columns(lines, block.across_roots(), s.planes.grid,
                   s.problem.kernel + image * s.problem.size * s.problem.size, s.problem.size, first);
    float2 *const otf = s.otf + image * s.planes.grid.height * s.planes.grid.columns + first;
    each_column_point(s.planes.grid.height, [&](int row, int j) {
        if (first + j < s.planes.grid.columns)
            otf[row * s.planes.grid.columns + j] = lines.at(row, j);
    });
}

__global__ void __launch_bounds__(kThreads, 2) solve_kernel(const __grid_constant__ ProximalSolve s) {
    LATENTDEM_DYNAMIC_SHARED(float2, memory);
    ProximalSolver(s, memory).solve();
}

// The solver's arrays in the workspace, and those of the preconditioner that fills them.
std::size_t arrange(const MaskedProximal &p, ProximalSolve &s, FramePreconditioner &frame) {
    Grid grid;
    if (!make_grid(p.height, p.width, grid))
        return 0;
    s.problem = p;
    s.planes = planes_of(grid, p.batch, p.channels);

    Workspace workspace(p.workspace);
    const std::size_t batch = static_cast<std::size_t>(p.batch), planes = batch * static_cast<std::size_t>(p.channels);
    const std::size_t height = static_cast<std::size_t>(p.height), width = static_cast<std::size_t>(p.width);
    const std::size_t half = height * static_cast<std::size_t>(grid.columns);
    s.otf = workspace.take<float2>(batch * half);
    for (float2 **const array : {&s.planes.rows, &s.spectrum})
        *array = workspace.take<float2>(planes * half);
    for (float **const array : {&s.change, &s.residual, &s.direction, &s.conditioned, &s.image})
        *array = workspace.take<float>(planes * height * width);
    s.planes.sums = workspace.take<float>(kSums * batch * static_cast<std::size_t>(s.planes.parts));
    s.diagonal = workspace.take<float>(batch);
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
    ProximalSolve solve;
    FramePreconditioner frame;
    return arrange(problem, solve, frame);
}

cudaError_t launch(const MaskedProximal &problem, cudaStream_t stream) {
    ProximalSolve solve;
    FramePreconditioner frame;
    if (!arrange(problem, solve, frame) || problem.size > problem.height || problem.size > problem.width)
        return cudaErrorInvalidValue;
    if (problem.batch * problem.channels == 0)
        return cudaSuccess;
    const std::size_t bytes = grid_bytes(solve.planes.grid);
    cudaError_t error =
        cudaFuncSetAttribute(otf_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    if (error != cudaSuccess)
        return error;
    const dim3 columns(static_cast<unsigned>(solve.planes.column_groups), static_cast<unsigned>(problem.batch));
    LATENTDEM_LAUNCH(otf_kernel, columns, dim3(kThreads), bytes, stream, solve);
    error = launch(frame, stream);
    if (error != cudaSuccess)
        return error;
    return launch_cooperative(solve_kernel, solve, problem.batch * solve.planes.parts, kThreads, bytes, stream);
}

} // namespace latentdem::cuda
