// kernel = project(denoise(update(kernel))), again and again, as one cooperative kernel. In turn
//   updates   of whole kernels, each by one block in shared memory (padded_update.cuh), with the projection of what
//             was denoised before;
//   layers    of the denoiser, tiles of all kernels by all blocks (denoiser_tiles.cuh), the first two in one.
// All blocks wait for each other in between, five times an iteration: a single kernel has the whole device, and several
// share it. Features stay in the level-2 cache.
#include "hqs_m_step.hpp"

#include "denoiser_tiles.cuh"
#include "launch.cuh"
#include "padded_update.cuh"
#include "workspace.hpp"

namespace latentdem::cuda {
namespace {

struct MStep {
    HqsMStep problem;
    float *features[2]; // batch x size x size x channels
    float *updated;     // batch x size x size, before denoising
    float *denoised;    // batch x size x size, not projected
    float *peaks;       // batch, of `updated`
};

template <int M>
__global__ void __launch_bounds__(PaddedGrid<M>::threads, 512 / PaddedGrid<M>::threads)
    m_step_kernel(const __grid_constant__ MStep m) {
    using L = PaddedGrid<M>;
    LATENTDEM_DYNAMIC_SHARED(float4, memory);
    const HqsMStep &p = m.problem;
    const std::int64_t points = static_cast<std::int64_t>(p.size) * p.size;
    PaddedUpdate<M> padded(reinterpret_cast<float2 *>(memory), p.size);
    DenoiserTiles<L::threads> tiles(p, reinterpret_cast<float *>(memory));

    const auto set_projected = [&](std::int64_t image) {
        const float *const denoised = m.denoised + image * points;
        padded.set(true, [&](int row, int column) { return denoised[row * p.size + column]; });
    };
    // work(image, row, column) of every tile.
    const auto each_tile = [&](auto work) {
        const int side = tiles.tiles_a_side(), count = side * side;
        for (std::int64_t unit = blockIdx.x; unit < p.batch * count; unit += gridDim.x) {
            const int tile = static_cast<int>(unit % count);
            work(unit / count, tile / side * kTile, tile % side * kTile);
            __syncthreads();
        }
    };
    const auto divisor = [&](float peak) { return peak > 0.0f ? peak : 1.0f; };

#pragma unroll 1
    for (int iteration = 0; iteration < p.iterations; ++iteration) {
        for (std::int64_t image = blockIdx.x; image < p.batch; image += gridDim.x) {
            if (iteration > 0) {
                set_projected(image);
            } else {
                const float *const kernel = p.kernel + image * points;
                padded.set(false, [&](int row, int column) { return kernel[row * p.size + column]; });
            }
            padded.load(p.filter + image * M * (M / 2 + 1), p.data_term + image * points);
            __syncthreads();
            padded.update(true);
            float *const updated = m.updated + image * points;
            float peak = 0.0f;
            padded.each([&](int row, int column, float value) {
                updated[row * p.size + column] = value;
                peak = value > peak ? value : peak;
            });
            __syncthreads(); // the sums of the projection are read
            peak = padded.maximum(peak);
            if (threadIdx.x == 0)
                m.peaks[image] = peak;
            __syncthreads();
        }
        tiles.stage(1);
        LATENTDEM_GRID_BARRIER();
#pragma unroll 1
        for (int layer = 1; layer < kDenoiserLayers - 1; ++layer) {
            const float *const from = m.features[(layer + 1) % 2];
            float *const to = m.features[layer % 2];
            each_tile([&](std::int64_t image, int top, int left) {
                if (layer == 1) {
                    const float peak = m.peaks[image], level = p.relative ? p.level[image] : p.level[image] / peak;
                    tiles.read_inputs(m.updated + image * points, divisor(peak), level, top, left);
                } else {
                    tiles.read(from + image * points * kDenoiserChannels, top, left);
                }
                __syncthreads();
                tiles.convolve(to + image * points * kDenoiserChannels, top, left);
            });
            tiles.stage(layer + 1);
            LATENTDEM_GRID_BARRIER();
        }
        each_tile([&](std::int64_t image, int top, int left) {
            tiles.read(m.features[(kDenoiserLayers - 2) % 2] + image * points * kDenoiserChannels, top, left);
            __syncthreads();
            const float peak = m.peaks[image], level = p.relative ? p.level[image] : p.level[image] / peak;
            const float *const updated = m.updated + image * points;
            float *const denoised = m.denoised + image * points;
            tiles.last(top, left, [&](int row, int column, float noise) {
                const int place = row * p.size + column;
                denoised[place] = peak * (updated[place] / divisor(peak) - level * noise);
            });
        });
        LATENTDEM_GRID_BARRIER();
    }
    for (std::int64_t image = blockIdx.x; image < p.batch; image += gridDim.x) {
        float *const result = p.updated + image * points;
        set_projected(image);
        padded.each([&](int row, int column, float value) { result[row * p.size + column] = value; });
        __syncthreads();
    }
}

std::size_t arrange(const HqsMStep &p, MStep &m) {
    m.problem = p;
    Workspace workspace(p.workspace);
    const std::size_t batch = static_cast<std::size_t>(p.batch), size = static_cast<std::size_t>(p.size);
    for (float *&features : m.features)
        features = workspace.take<float>(batch * size * size * kDenoiserChannels);
    for (float **const array : {&m.updated, &m.denoised})
        *array = workspace.take<float>(batch * size * size);
    m.peaks = workspace.take<float>(batch);
    return workspace.bytes();
}

template <int M>
cudaError_t launch_padded(const MStep &step, cudaStream_t stream) {
    constexpr std::size_t bytes = PaddedGrid<M>::bytes < TileMemory::bytes ? TileMemory::bytes : PaddedGrid<M>::bytes;
    const int side = (step.problem.size + kTile - 1) / kTile;
    return launch_cooperative(m_step_kernel<M>, step, step.problem.batch * side * side, PaddedGrid<M>::threads, bytes,
                              stream);
}

} // namespace

std::size_t workspace_bytes(const HqsMStep &problem) {
    MStep step;
    return arrange(problem, step);
}

cudaError_t launch(const HqsMStep &problem, cudaStream_t stream) {
    if (problem.size < 1 || 2 * problem.size > problem.side || problem.iterations < 1)
        return cudaErrorInvalidValue;
    if (problem.batch == 0)
        return cudaSuccess;
    MStep step;
    arrange(problem, step);
    switch (problem.side) {
    case 32:
        return launch_padded<32>(step, stream);
    case 64:
        return launch_padded<64>(step, stream);
    case 128:
        return launch_padded<128>(step, stream);
    default:
        return cudaErrorInvalidValue;
    }
}

} // namespace latentdem::cuda
