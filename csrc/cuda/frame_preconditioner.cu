// Bands of a frame and the inverses of their blocks: three launches, no step on the host.
#include "frame_preconditioner.hpp"

#include "block_sum.cuh"
#include "complex.cuh"
#include "launch.cuh"

namespace latentdem::cuda {
namespace {

constexpr int kFrameThreads = 256;
constexpr int kSide = 16;                // a thread has every sixteenth row and column of a block
constexpr int kOwn = kBand / kSide;      // those
constexpr int kLags = kBand * 3 / 2 - 1; // distances between two lines of a band: within a half, and between halves

// One block for each row, then one for each column.
__global__ void __launch_bounds__(kFrameThreads) measured_kernel(FramePreconditioner f) {
    __shared__ float sums[kFrameThreads / 32];
    const int line = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
    const bool row = line < f.height;
    const int length = row ? f.width : f.height;
    float found = 0.0f;
    for (std::int64_t m = 0; m < f.masks; ++m) {
        const float *const mask = f.mask + m * f.height * f.width;
        for (int n = thread; n < length; n += kFrameThreads)
            found += mask[row ? line * f.width + n : n * f.width + line - f.height] > 0.0f ? 1.0f : 0.0f;
    }
    found = block_sum<kFrameThreads>(found, sums);
    if (thread == 0)
        f.measured[line] = found > 0.0f;
}

// One block for each band: its lines, in their order on the circle of the grid.
__global__ void __launch_bounds__(kFrameThreads) lines_kernel(FramePreconditioner f) {
    __shared__ int firsts[kFrameThreads], lasts[kFrameThreads];
    const int thread = static_cast<int>(threadIdx.x), start = blockIdx.x == 0 ? 0 : f.height;
    const int length = blockIdx.x == 0 ? f.height : f.width;
    int first = length, last = -1;
    for (int n = thread; n < length; n += kFrameThreads)
        if (f.measured[start + n]) {
            first = n < first ? n : first;
            last = n;
        }
    firsts[thread] = first;
    lasts[thread] = last;
    for (int half = kFrameThreads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (thread < half) {
            const int a = firsts[thread + half], b = lasts[thread + half];
            firsts[thread] = a < firsts[thread] ? a : firsts[thread];
            lasts[thread] = b > lasts[thread] ? b : lasts[thread];
        }
    }
    __syncthreads();
    const bool nothing = lasts[0] < 0;
    first = nothing ? 0 : firsts[0];
    last = nothing ? 0 : lasts[0];
    const int gap = length - 1 - (last - first), count = gap < kBand ? gap : kBand;
    FrameBand &band = f.bands[blockIdx.x];
    for (int n = thread; n < length; n += kFrameThreads) {
        const int offset = (n - last - 1 + length) % length; // from the first line of the frame
        int place = offset < gap ? offset : -1;
        if (gap > kBand && offset >= kBand / 2) // both halves have the same width
            place = offset < gap && offset >= gap - kBand / 2 ? offset - gap + kBand : -1;
        f.places[start + n] = place;
        if (place >= 0)
            band.lines[place] = n;
    }
    if (thread == 0) {
        band.count = count;
        band.gap = gap;
    }
}

// The distance of line i of a band from its first one.
__device__ __forceinline__ int offset_of(int i, int gap) { return gap <= kBand || i < kBand / 2 ? i : gap - kBand + i; }

// The place of the response to a distance among the lags: the distances within a half, then those between halves.
__device__ __forceinline__ int lag_of(int distance, int gap) {
    return gap <= kBand || distance < kBand / 2 ? distance : distance - gap + kBand * 3 / 2 - 1;
}

// One block for a frequency along the lines of a band. A block of the preconditioner is inverted in registers, in
// double precision, by Gauss-Jordan elimination, which needs no pivots for a positive definite matrix.
__global__ void __launch_bounds__(kFrameThreads) inverse_kernel(FramePreconditioner f) {
    LATENTDEM_DYNAMIC_SHARED(double, memory);
    const int columns = f.width / 2 + 1, thread = static_cast<int>(threadIdx.x);
    const bool rows = static_cast<int>(blockIdx.x) < columns;
    const int frequency = static_cast<int>(blockIdx.x) - (rows ? 0 : columns);
    const int across = rows ? f.height : f.width, frequencies = rows ? columns : f.height / 2 + 1;
    const FrameBand &band = f.bands[rows ? 0 : 1];
    const int count = band.count, gap = band.gap;
    if (count == 0)
        return;
    double *const eigenvalues = memory, *const cosines = memory + across, *const sines = cosines + across;
    double *const real = sines + across, *const imaginary = real + kLags;
    double *const pivot_row = imaginary + kLags, *const pivot_column = pivot_row + kBand;

    const std::int64_t image = blockIdx.y;
    const float2 *const otf = f.otf + image * f.height * columns;
    const double rho = f.rho[image];
    for (int n = thread; n < across; n += kFrameThreads) {
        int k = rows ? n : frequency, u = rows ? frequency : n;
        if (u >= columns) { // the other half of the spectrum
            u = f.width - u;
            k = k == 0 ? 0 : f.height - k;
        }
        const float2 h = otf[k * columns + u];
        const double re = h.x, im = h.y, eigenvalue = rho / (re * re + im * im + rho);
        eigenvalues[n] = (eigenvalue < f.least ? f.least : eigenvalue) / across;
        sincospi(2.0 * n / across, &sines[n], &cosines[n]);
    }
    __syncthreads();
    for (int lag = thread; lag < kLags; lag += kFrameThreads) {
        const int distance = (gap <= kBand || lag < kBand / 2 ? lag : lag + gap - kBand * 3 / 2 + 1) % across;
        double re = 0.0, im = 0.0;
        for (int n = 0, turn = 0; n < across; ++n, turn += distance) {
            turn -= turn < across ? 0 : across;
            re += eigenvalues[n] * cosines[turn];
            im += eigenvalues[n] * sines[turn];
        }
        real[lag] = re;
        imaginary[lag] = im;
    }
    __syncthreads();

    // Re A + Im A J, where J reverses a vector, and the identity beyond it.
    const int i0 = thread / kSide, j0 = thread % kSide;
    double a[kOwn][kOwn];
#pragma unroll
    for (int p = 0; p < kOwn; ++p)
#pragma unroll
        for (int q = 0; q < kOwn; ++q) {
            const int i = i0 + kSide * p, j = j0 + kSide * q;
            a[p][q] = i == j ? 1.0 : 0.0;
            if (i < count && j < count) {
                const int at = offset_of(i, gap), straight = at - offset_of(j, gap);
                const int reversed = at - offset_of(count - 1 - j, gap);
                const double turned = imaginary[lag_of(reversed < 0 ? -reversed : reversed, gap)];
                a[p][q] = real[lag_of(straight < 0 ? -straight : straight, gap)] + (reversed < 0 ? -turned : turned);
            }
        }
#pragma unroll
    for (int s = 0; s < kOwn; ++s)
        for (int t = 0; t < kSide; ++t) {
            if (kSide * s + t >= count)
                break;
#pragma unroll
            for (int p = 0; p < kOwn; ++p) {
                if (i0 == t)
                    pivot_row[j0 + kSide * p] = a[s][p];
                if (j0 == t)
                    pivot_column[i0 + kSide * p] = a[p][s];
            }
            __syncthreads();
            const double pivot = 1.0 / pivot_row[kSide * s + t];
#pragma unroll
            for (int p = 0; p < kOwn; ++p) {
                const bool in_row = p == s && i0 == t;
                const double factor = in_row ? -1.0 : pivot_column[i0 + kSide * p];
#pragma unroll
                for (int q = 0; q < kOwn; ++q) {
                    const bool in_column = q == s && j0 == t;
                    const double value = in_column ? pivot : pivot * pivot_row[j0 + kSide * q];
                    a[p][q] = (in_row || in_column ? 0.0 : a[p][q]) - factor * value;
                }
            }
            __syncthreads();
        }
    float *const inverse = (rows ? f.inverses[0] : f.inverses[1]) + (image * frequencies + frequency) * kBand * kBand;
#pragma unroll
    for (int p = 0; p < kOwn; ++p)
#pragma unroll
        for (int q = 0; q < kOwn; ++q)
            if (i0 + kSide * p < count && j0 + kSide * q < count)
                inverse[(i0 + kSide * p) * count + j0 + kSide * q] = static_cast<float>(a[p][q]);
}

} // namespace

cudaError_t launch(const FramePreconditioner &frame, cudaStream_t stream) {
    const int most = frame.height > frame.width ? frame.height : frame.width;
    const std::size_t bytes = static_cast<std::size_t>(3 * most + 2 * kLags + 2 * kBand) * sizeof(double);
    LATENTDEM_LAUNCH(measured_kernel, dim3(static_cast<unsigned>(frame.height + frame.width)), dim3(kFrameThreads), 0,
                     stream, frame);
    LATENTDEM_LAUNCH(lines_kernel, dim3(2), dim3(kFrameThreads), 0, stream, frame);
    const dim3 grid(static_cast<unsigned>(frame.width / 2 + 1 + frame.height / 2 + 1),
                    static_cast<unsigned>(frame.batch));
    LATENTDEM_LAUNCH(inverse_kernel, grid, dim3(kFrameThreads), bytes, stream, frame);
    return cudaGetLastError();
}

} // namespace latentdem::cuda
