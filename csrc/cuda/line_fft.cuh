// Fourier transforms in shared memory of lines of any length, for the grids of photographs. The algorithm is
// Stockham's, as in column_fft.cuh, whose lengths are powers of two: a step with radix R joins transforms of `length`
// points into transforms of R length points. Real lines are transformed in pairs, as real and imaginary part of a
// complex line.
#pragma once

#include "complex.cuh"
#include "fft.cuh"

namespace latentdem::cuda {

constexpr int kThreads = 256;     // of a block that transforms lines
constexpr int kLargestPrime = 31; // factor of a length
constexpr int kMostSteps = 12;

// The radices of a transform.
struct LinePlan {
    int points = 0, steps = 0, radix[kMostSteps] = {};
};

// False where a prime factor is too large.
inline bool make_plan(int points, LinePlan &plan) {
    plan = {};
    plan.points = points;
    int rest = points;
    const auto take = [&](int factor) {
        for (; rest % factor == 0 && plan.steps < kMostSteps; rest /= factor)
            plan.radix[plan.steps++] = factor;
    };
    for (const int factor : {8, 4, 2})
        take(factor);
    for (int factor = 3; factor <= kLargestPrime; factor += 2)
        take(factor);
    return rest == 1;
}

// L lines in shared memory, point n of line l at n L + l.
template <int L>
struct Lines {
    float2 *values, *spare;
    const float2 *roots; // exp(-2 pi i n / points), n < points

    __device__ float2 &at(int n, int line) { return values[n * L + line]; }

    // Transforms all lines, without a scale. It waits for what the block wrote to them before and has written after.
    template <bool Inverse>
    __device__ void transform(const LinePlan &plan) {
        *this = transformed<Inverse>(*this, plan);
    }

  private:
    // Called and not inlined: a kernel that transforms in many places would otherwise have half a megabyte of code.
    template <bool Inverse>
    __device__ __noinline__ static Lines transformed(Lines lines, const LinePlan &plan) {
        lines.template steps<Inverse>(plan);
        return lines;
    }

    template <bool Inverse>
    __device__ void steps(const LinePlan &plan) {
        __syncthreads();
        int length = 1;
#pragma unroll 1
        for (int i = 0; i < plan.steps; ++i) {
            const int radix = plan.radix[i];
            if (radix == 8)
                step<8, Inverse>(plan.points, length);
            else if (radix == 4)
                step<4, Inverse>(plan.points, length);
            else if (radix == 2)
                step<2, Inverse>(plan.points, length);
            else if (radix == 3)
                step<3, Inverse>(plan.points, length);
            else if (radix == 5)
                step<5, Inverse>(plan.points, length);
            else
                prime_step<Inverse>(plan.points, length, radix);
            length *= radix;
            __syncthreads();
            float2 *const before = values;
            values = spare;
            spare = before;
        }
    }

    template <bool Inverse>
    __device__ float2 root(int index) const {
        return Inverse ? conj(roots[index]) : roots[index];
    }

    template <int R, bool Inverse>
    __device__ void step(int points, int length) {
        const int butterflies = points / R, spacing = butterflies / length;
#pragma unroll 1 // no more code than there are registers for
        for (int n = static_cast<int>(threadIdx.x); n < L * butterflies; n += kThreads) {
            const int line = n % L, butterfly = n / L, k = butterfly % length;
            float2 x[R];
#pragma unroll
            for (int r = 0; r < R; ++r) {
                x[r] = values[(butterfly + r * butterflies) * L + line];
                if (r > 0)
                    x[r] = x[r] * root<Inverse>(r * k * spacing);
            }
            if constexpr (R % 2 == 0)
                dft<R, Inverse>(x);
            else
                odd_dft<R, Inverse>(x, butterflies);
            const int first = (butterfly - k) * R + k;
#pragma unroll
            for (int r = 0; r < R; ++r)
                spare[(first + r * length) * L + line] = x[r];
        }
    }

    // x_n and x_(R-n) have roots that are conjugate to each other.
    template <int R, bool Inverse>
    __device__ void odd_dft(float2 (&x)[R], int spacing) const {
        float2 even[R / 2], odd[R / 2];
#pragma unroll
        for (int n = 1; n <= R / 2; ++n) {
            even[n - 1] = x[n] + x[R - n];
            odd[n - 1] = x[n] - x[R - n];
        }
        const float2 zero = x[0];
#pragma unroll
        for (int n = 0; n < R / 2; ++n)
            x[0] = x[0] + even[n];
#pragma unroll
        for (int k = 1; k <= R / 2; ++k) {
            float2 a = zero, b{0.0f, 0.0f};
#pragma unroll
            for (int n = 1; n <= R / 2; ++n) {
                const float2 w = root<Inverse>(n * k % R * spacing);
                a = a + w.x * even[n - 1];
                b = b + w.y * odd[n - 1];
            }
            x[k] = {a.x - b.y, a.y + b.x};
            x[R - k] = {a.x + b.y, a.y - b.x};
        }
    }

    // Any radix: a thread adds up one point.
    template <bool Inverse>
    __device__ void prime_step(int points, int length, int radix) {
        const int butterflies = points / radix, spacing = butterflies / length;
#pragma unroll 1
        for (int n = static_cast<int>(threadIdx.x); n < L * points; n += kThreads) {
            const int line = n % L, place = n / L, k = place % (radix * length);
            const int butterfly = place / (radix * length) * length + k % length;
            float2 sum{0.0f, 0.0f};
#pragma unroll 1
            for (int r = 0, turn = 0; r < radix; ++r, turn += k * spacing) {
                turn -= turn < points ? 0 : points;
                sum = sum + root<Inverse>(turn) * values[(butterfly + r * butterflies) * L + line];
            }
            spare[place * L + line] = sum;
        }
    }
};

__device__ __forceinline__ void fill_roots(float2 *roots, int points) {
    for (int n = static_cast<int>(threadIdx.x); n < points; n += kThreads) {
        const int turn = 2 * n > points ? n - points : n; // small angles are rounded less
        sincospif(-2.0f * static_cast<float>(turn) / static_cast<float>(points), &roots[n].y, &roots[n].x);
    }
}

} // namespace latentdem::cuda
