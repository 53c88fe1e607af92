// The launch of masked_kernel_solve.
#include "masked_kernel.hpp"

#include "kernel_solver.cuh"
#include "workspace.hpp"

namespace latentdem::cuda {
namespace {

__global__ void __launch_bounds__(kThreads, 2) solve_kernel(const __grid_constant__ KernelSolve s) {
    LATENTDEM_DYNAMIC_SHARED(float2, memory);
    KernelSolver(s, memory).solve();
}

// The solver's arrays in the workspace.
std::size_t arrange(const MaskedKernel &p, KernelSolve &s) {
    Grid grid;
    if (!make_grid(p.height, p.width, grid))
        return 0;
    s.problem = p;
    s.planes = planes_of(grid, p.batch, p.images);

    Workspace workspace(p.workspace);
    const std::size_t batch = static_cast<std::size_t>(p.batch), planes = batch * static_cast<std::size_t>(p.images);
    const std::size_t size = static_cast<std::size_t>(p.size), columns = static_cast<std::size_t>(grid.columns);
    const std::size_t half = static_cast<std::size_t>(p.height) * columns;
    for (float2 **const array : {&s.planes.rows, &s.spectra})
        *array = workspace.take<float2>(planes * half);
    s.spectrum = workspace.take<float2>(batch * half);
    s.window = workspace.take<float2>(batch * size * columns);
    s.power = workspace.take<float>(batch * half);
    for (float **const array : {&s.direction, &s.conditioned, &s.image})
        *array = workspace.take<float>(batch * size * size);
    s.planes.sums = workspace.take<float>(batch * static_cast<std::size_t>(s.planes.parts));
    s.samples = workspace.take<Sample>(batch);
    return workspace.bytes();
}

} // namespace

std::size_t workspace_bytes(const MaskedKernel &problem) {
    KernelSolve solve;
    return arrange(problem, solve);
}

cudaError_t launch(const MaskedKernel &problem, cudaStream_t stream) {
    KernelSolve solve;
    if (!arrange(problem, solve) || problem.size > problem.height || problem.size > problem.width)
        return cudaErrorInvalidValue;
    if (problem.batch * problem.images == 0)
        return cudaSuccess;
    return launch_cooperative(solve_kernel, solve, problem.batch * solve.planes.parts, kThreads,
                              grid_bytes(solve.planes.grid), stream);
}

} // namespace latentdem::cuda
