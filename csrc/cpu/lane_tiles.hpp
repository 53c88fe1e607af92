// Steps between FFTs in lanes (lane_fft.hpp): lanes are exchanged with rows, and transforms of real sequences are
// separated from the complex ones of half their length.
#pragma once

#include <cstddef>

#include "lane_fft.hpp"
#include "multiversion.hpp"

namespace latentdem {

#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)

// Eight rows of eight values, in registers. Strides are in floats.
LATENTDEM_INLINE void transpose_eight(const float *from, std::ptrdiff_t from_stride, float *to,
                                      std::ptrdiff_t to_stride) {
    typedef float Eight __attribute__((vector_size(32), aligned(4), may_alias));
    Eight a[8], b[8];
    for (int i = 0; i < 8; ++i)
        a[i] = *reinterpret_cast<const Eight *>(from + i * from_stride);
    for (int i = 0; i < 8; i += 2) {
        b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; ++j) {
            a[i + 2 * j] = __builtin_shufflevector(b[i + j], b[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            a[i + 2 * j + 1] = __builtin_shufflevector(b[i + j], b[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; ++i) {
        *reinterpret_cast<Eight *>(to + i * to_stride) =
            __builtin_shufflevector(a[i], a[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        *reinterpret_cast<Eight *>(to + (i + 4) * to_stride) =
            __builtin_shufflevector(a[i], a[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

#else

LATENTDEM_INLINE void transpose_eight(const float *from, std::ptrdiff_t from_stride, float *to,
                                      std::ptrdiff_t to_stride) {
    for (int i = 0; i < 8; ++i)
        for (int j = 0; j < 8; ++j)
            to[j * to_stride + i] = from[i * from_stride + j];
}

#endif

// Sixteen rows of sixteen values.
LATENTDEM_INLINE void transpose_tile(const float *from, std::ptrdiff_t from_stride, float *to,
                                     std::ptrdiff_t to_stride) {
    for (int i = 0; i < kLanes; i += 8)
        for (int j = 0; j < kLanes; j += 8)
            transpose_eight(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride);
}

// Exchanges rows and lanes of 16 rows.
LATENTDEM_INLINE void transpose_rows(const Row *from, Row *to) {
    constexpr std::ptrdiff_t row = sizeof(Row) / sizeof(float);
    transpose_tile(from->re, row, to->re, row);
    transpose_tile(from->im, row, to->im, row);
}

// From the transform Z of x[2n] + i x[2n+1] at frequencies u and L - u to twice that of x, or back to twice Z:
// a + conj b + t (a - conj b) and its counterpart, t = -i exp(-2 pi i u / M) there and its conjugate on the way back.
LATENTDEM_INLINE void separate(const Row &a, const Row &b, float t_re, float t_im, Row &to_a, Row &to_b) {
    LATENTDEM_INDEPENDENT
    for (int lane = 0; lane < kLanes; ++lane) {
        const float sum_re = a.re[lane] + b.re[lane], sum_im = a.im[lane] - b.im[lane];
        const float rest_re = a.re[lane] - b.re[lane], rest_im = a.im[lane] + b.im[lane];
        const float turned_re = t_re * rest_re - t_im * rest_im, turned_im = t_re * rest_im + t_im * rest_re;
        to_a.re[lane] = sum_re + turned_re;
        to_a.im[lane] = sum_im + turned_im;
        to_b.re[lane] = sum_re - turned_re;
        to_b.im[lane] = turned_im - sum_im;
    }
}

} // namespace latentdem
