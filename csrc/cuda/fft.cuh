// Complex Fourier transforms of M = 32, 64 or 128 points of which only the first half is non-zero (forward) or
// wanted (inverse): a kernel on a padded grid of twice its size.
//
// With M = A B, n = B a + b and k = k1 + A k2 a transform falls into short ones that fit in registers,
//   X[k1 + A k2] = sum_b W_B^(b k2) W_M^(b k1) sum_a W_A^(a k1) x[B a + b],   W_n = exp(-2 pi i / n),
// and the inverse into the same steps in opposite order. B threads share a transform: thread t holds the points
// B a + t, then, after an exchange through shared memory, the frequencies k1 + A k2 for k1 = t, t + B, ...
// A transform library (cuFFTDx) would add a dependency to the build and knows nothing of the halves.
#pragma once

#include "complex.cuh"

namespace latentdem::cuda {

template <int M>
struct Split {
    static constexpr int A = M == 128 ? 16 : 8;
    static constexpr int B = M / A;
    static constexpr int half = A / 2;   // points a thread holds of a line whose second half is zero
    static constexpr int groups = A / B; // values of k1 a thread holds
};

// v exp(-2 pi i index / N), conjugated for the inverse; N divides 16 and index < N / 2 is known to the compiler.
template <int N, bool Inverse>
__device__ __forceinline__ float2 rotate(float2 v, int index) {
    constexpr float cosine[8] = {1.0f, 0.92387953251f,  0.70710678119f,  0.38268343236f,
                                 0.0f, -0.38268343236f, -0.70710678119f, -0.92387953251f};
    constexpr float sine[8] = {0.0f, 0.38268343236f, 0.70710678119f, 0.92387953251f,
                               1.0f, 0.92387953251f, 0.70710678119f, 0.38268343236f};
    if (index == 0)
        return v;
    if (4 * index == N)
        return Inverse ? float2{-v.y, v.x} : float2{v.y, -v.x};
    const float c = cosine[16 / N * index], s = Inverse ? -sine[16 / N * index] : sine[16 / N * index];
    return {c * v.x + s * v.y, c * v.y - s * v.x};
}

// Transform of N points in registers, in place, without a scale.
template <int N, bool Inverse>
__device__ __forceinline__ void dft(float2 (&x)[N]) {
    if constexpr (N > 1) {
        float2 even[N / 2], odd[N / 2];
#pragma unroll
        for (int i = 0; i < N / 2; ++i) {
            even[i] = x[i] + x[i + N / 2];
            odd[i] = rotate<N, Inverse>(x[i] - x[i + N / 2], i);
        }
        dft<N / 2, Inverse>(even);
        dft<N / 2, Inverse>(odd);
#pragma unroll
        for (int i = 0; i < N / 2; ++i) {
            x[2 * i] = even[i];
            x[2 * i + 1] = odd[i];
        }
    }
}

// Transform of 2 H points whose second half is zero.
template <int H>
__device__ __forceinline__ void dft_of_first_half(const float2 (&x)[H], float2 (&spectrum)[2 * H]) {
    float2 even[H], odd[H];
#pragma unroll
    for (int i = 0; i < H; ++i) {
        even[i] = x[i];
        odd[i] = rotate<2 * H, false>(x[i], i);
    }
    dft<H, false>(even);
    dft<H, false>(odd);
#pragma unroll
    for (int i = 0; i < H; ++i) {
        spectrum[2 * i] = even[i];
        spectrum[2 * i + 1] = odd[i];
    }
}

// First half of the inverse transform of 2 H points, without the scale 1 / (2 H).
template <int H>
__device__ __forceinline__ void first_half_of_inverse(const float2 (&spectrum)[2 * H], float2 (&x)[H]) {
    float2 even[H], odd[H];
#pragma unroll
    for (int i = 0; i < H; ++i) {
        even[i] = spectrum[2 * i];
        odd[i] = spectrum[2 * i + 1];
    }
    dft<H, true>(even);
    dft<H, true>(odd);
#pragma unroll
    for (int i = 0; i < H; ++i)
        x[i] = even[i] + rotate<2 * H, true>(odd[i], i);
}

// Forward transform of the points B a + t, a < A / 2, of a line; the others are zero. Frequency t + B j + A k2 comes
// out in spectrum[j][k2]. `exchange` is the line's place in an array of M x Pitch numbers, roots[i] = W_M^i. Every
// thread of the block calls this, those without a line with `active` false.
template <int M, int Pitch>
__device__ __forceinline__ void forward(const float2 (&x)[Split<M>::half],
                                        float2 (&spectrum)[Split<M>::groups][Split<M>::B], float2 *exchange,
                                        const float2 *roots, int t, bool active) {
    constexpr int A = Split<M>::A, B = Split<M>::B;
    if (active) {
        float2 short_spectrum[A];
        dft_of_first_half(x, short_spectrum);
#pragma unroll
        for (int k1 = 0; k1 < A; ++k1)
            exchange[(B * k1 + t) * Pitch] = short_spectrum[k1] * roots[k1 * t];
    }
    __syncthreads();
    if (active) {
#pragma unroll
        for (int j = 0; j < Split<M>::groups; ++j) {
#pragma unroll
            for (int b = 0; b < B; ++b)
                spectrum[j][b] = exchange[(B * (t + B * j) + b) * Pitch];
            dft<B, false>(spectrum[j]);
        }
    }
}

// The inverse of `forward` without the scale 1 / M: the first half of the line. It writes to `exchange` where the
// same thread of `forward` reads, so nothing need come between the two.
template <int M, int Pitch>
__device__ __forceinline__ void inverse(float2 (&spectrum)[Split<M>::groups][Split<M>::B], float2 (&x)[Split<M>::half],
                                        float2 *exchange, const float2 *roots, int t, bool active) {
    constexpr int A = Split<M>::A, B = Split<M>::B;
    if (active) {
#pragma unroll
        for (int j = 0; j < Split<M>::groups; ++j) {
            dft<B, true>(spectrum[j]);
#pragma unroll
            for (int b = 0; b < B; ++b)
                exchange[(B * (t + B * j) + b) * Pitch] = spectrum[j][b] * conj(roots[(t + B * j) * b]);
        }
    }
    __syncthreads();
    if (active) {
        float2 short_spectrum[A];
#pragma unroll
        for (int k1 = 0; k1 < A; ++k1)
            short_spectrum[k1] = exchange[(B * k1 + t) * Pitch];
        first_half_of_inverse(short_spectrum, x);
    }
}

} // namespace latentdem::cuda
