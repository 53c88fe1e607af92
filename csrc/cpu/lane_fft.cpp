#include "lane_fft.hpp"

#include <cmath>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "multiversion.hpp"

namespace latentdem {
namespace {

constexpr int kRadices[] = {4, 2, 3, 5, 7, 11, 13};
constexpr int kLargestRadix = 13;
constexpr int kCached = 256; // points whose rows stay in the first-level cache from pass to pass
constexpr std::ptrdiff_t kRow = sizeof(Row) / sizeof(float);

struct Complex {
    float re, im;
};

LATENTDEM_INLINE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
LATENTDEM_INLINE Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
LATENTDEM_INLINE Complex operator*(float s, Complex a) { return {s * a.re, s * a.im}; }
LATENTDEM_INLINE Complex operator*(Complex a, Complex b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
LATENTDEM_INLINE Complex minus_i(Complex a) { return {a.im, -a.re}; }

LATENTDEM_INLINE void dft(Complex (&x)[2]) {
    const Complex sum = x[0] + x[1], difference = x[0] - x[1];
    x[0] = sum;
    x[1] = difference;
}

LATENTDEM_INLINE void dft(Complex (&x)[3]) {
    constexpr float sin60 = 0.866025403784438647f;
    const Complex sum = x[1] + x[2], turned = sin60 * minus_i(x[1] - x[2]);
    const Complex middle = x[0] - 0.5f * sum;
    x[0] = x[0] + sum;
    x[1] = middle + turned;
    x[2] = middle - turned;
}

LATENTDEM_INLINE void dft(Complex (&x)[4]) {
    const Complex even = x[0] + x[2], even_difference = x[0] - x[2];
    const Complex odd = x[1] + x[3], odd_difference = minus_i(x[1] - x[3]);
    x[0] = even + odd;
    x[1] = even_difference + odd_difference;
    x[2] = even - odd;
    x[3] = even_difference - odd_difference;
}

LATENTDEM_INLINE void dft(Complex (&x)[5]) {
    constexpr float cos72 = 0.309016994374947424f, cos144 = -0.809016994374947424f;
    constexpr float sin72 = 0.951056516295153572f, sin144 = 0.587785252292473129f;
    const Complex near = x[1] + x[4], far = x[2] + x[3];
    const Complex near_difference = minus_i(x[1] - x[4]), far_difference = minus_i(x[2] - x[3]);
    const Complex first = x[0] + cos72 * near + cos144 * far;
    const Complex second = x[0] + cos144 * near + cos72 * far;
    const Complex first_turned = sin72 * near_difference + sin144 * far_difference;
    const Complex second_turned = sin144 * near_difference - sin72 * far_difference;
    x[0] = x[0] + near + far;
    x[1] = first + first_turned;
    x[2] = second + second_turned;
    x[3] = second - second_turned;
    x[4] = first - first_turned;
}

enum class Twiddles { none, before, after };

// One butterfly in every lane. re and im point to the parts of its first element, the others follow every `step`
// floats.
template <int Radix, Twiddles twiddles>
LATENTDEM_INLINE void butterfly(float *re, float *im, std::ptrdiff_t step, const float *factors) {
    Complex turn[Radix];
    if (twiddles != Twiddles::none)
        for (int q = 1; q < Radix; ++q)
            turn[q] = {factors[2 * q - 2], factors[2 * q - 1]};
    LATENTDEM_INDEPENDENT
    for (int lane = 0; lane < kLanes; ++lane) {
        Complex x[Radix];
        for (int q = 0; q < Radix; ++q)
            x[q] = {re[q * step + lane], im[q * step + lane]};
        if (twiddles == Twiddles::before)
            for (int q = 1; q < Radix; ++q)
                x[q] = x[q] * turn[q];
        dft(x);
        if (twiddles == Twiddles::after)
            for (int q = 1; q < Radix; ++q)
                x[q] = x[q] * turn[q];
        for (int q = 0; q < Radix; ++q) {
            re[q * step + lane] = x[q].re;
            im[q * step + lane] = x[q].im;
        }
    }
}

// The same for any odd radix, from sums s and differences d of the elements q and radix - q:
// X[k] = x[0] + sum_q cos(2 pi k q / radix) s[q] - i sin(2 pi k q / radix) d[q], and + for X[radix - k].
template <Twiddles twiddles>
LATENTDEM_INLINE void odd_butterfly(const FftPlan::Pass &pass, float *re, float *im, const float *factors) {
    const int radix = pass.radix, half = radix / 2;
    const std::ptrdiff_t step = pass.span * kRow;
    Row x[kLargestRadix];
    // In an array, with 1 for "none": GCC 12 miscompiles a choice made inside the loops (for AVX2 and wider, at -O3).
    Complex before[kLargestRadix], after[kLargestRadix];
    for (int q = 0; q < radix; ++q) {
        const bool turned = twiddles != Twiddles::none && q > 0;
        const Complex turn = turned ? Complex{factors[2 * q - 2], factors[2 * q - 1]} : Complex{1, 0};
        before[q] = twiddles == Twiddles::before ? turn : Complex{1, 0};
        after[q] = twiddles == Twiddles::after ? turn : Complex{1, 0};
    }
    for (int q = 0; q < radix; ++q) {
        LATENTDEM_INDEPENDENT
        for (int lane = 0; lane < kLanes; ++lane) {
            const Complex value = Complex{re[q * step + lane], im[q * step + lane]} * before[q];
            x[q].re[lane] = value.re;
            x[q].im[lane] = value.im;
        }
    }
    for (int k = 0; k <= half; ++k) {
        Row even = x[0], odd{};
        for (int q = 1; q <= half; ++q) {
            const float cosine = pass.roots[2 * (k * q % radix)], sine = pass.roots[2 * (k * q % radix) + 1];
            const Row &a = x[q], &b = x[radix - q];
            LATENTDEM_INDEPENDENT
            for (int lane = 0; lane < kLanes; ++lane) {
                even.re[lane] += cosine * (a.re[lane] + b.re[lane]);
                even.im[lane] += cosine * (a.im[lane] + b.im[lane]);
                odd.re[lane] -= sine * (a.im[lane] - b.im[lane]);
                odd.im[lane] += sine * (a.re[lane] - b.re[lane]);
            }
        }
        const int opposite = (radix - k) % radix; // of 0 it is 0 itself, where there is no difference
        LATENTDEM_INDEPENDENT
        for (int lane = 0; lane < kLanes; ++lane) {
            const Complex sum{even.re[lane], even.im[lane]}, difference{odd.re[lane], odd.im[lane]};
            const Complex first = (sum + difference) * after[k], second = (sum - difference) * after[opposite];
            re[k * step + lane] = first.re;
            im[k * step + lane] = first.im;
            re[opposite * step + lane] = second.re;
            im[opposite * step + lane] = second.im;
        }
    }
}

// One pass over `length` points, whole butterflies.
template <int Radix, Twiddles twiddles>
LATENTDEM_INLINE void run_pass(const FftPlan::Pass &pass, int length, float *re, float *im) {
    const std::ptrdiff_t step = pass.span * kRow, end = length * kRow;
    for (std::ptrdiff_t at = 0; at < end; at += Radix * step)
        butterfly<Radix, Twiddles::none>(re + at, im + at, step, nullptr);
    for (int j = 1; j < pass.span; ++j) {
        const float *const factors = pass.twiddles.data() + 2 * (Radix - 1) * j;
        for (std::ptrdiff_t at = j * kRow; at < end; at += Radix * step)
            butterfly<Radix, twiddles>(re + at, im + at, step, factors);
    }
}

template <Twiddles twiddles>
LATENTDEM_INLINE void run_odd_pass(const FftPlan::Pass &pass, int length, float *re, float *im) {
    for (int j = 0; j < pass.span; ++j) {
        const float *const factors = pass.twiddles.data() + 2 * (pass.radix - 1) * j;
        for (std::ptrdiff_t at = j * kRow; at < length * kRow; at += pass.radix * pass.span * kRow)
            odd_butterfly<twiddles>(pass, re + at, im + at, factors);
    }
}

template <Twiddles twiddles>
LATENTDEM_INLINE void run_pass(const FftPlan::Pass &pass, int length, float *re, float *im) {
    switch (pass.radix) {
    case 2:
        return run_pass<2, twiddles>(pass, length, re, im);
    case 3:
        return run_pass<3, twiddles>(pass, length, re, im);
    case 4:
        return run_pass<4, twiddles>(pass, length, re, im);
    case 5:
        return run_pass<5, twiddles>(pass, length, re, im);
    default:
        return run_odd_pass<twiddles>(pass, length, re, im);
    }
}

using Passes = const FftPlan::Pass *;

// Rows as one array: a pointer to the `re` of one may not be moved to another.
LATENTDEM_INLINE float *values(Row *rows) { return reinterpret_cast<float *>(rows); }

// Decimation in frequency.
LATENTDEM_MULTIVERSION void forward_passes(Passes first, Passes last, int length, Row *rows) {
    for (; first != last; ++first)
        run_pass<Twiddles::after>(*first, length, values(rows), values(rows) + kLanes);
}

// Decimation in time; with real and imaginary parts exchanged a forward transform is an inverse one.
LATENTDEM_MULTIVERSION void inverse_passes(Passes first, Passes last, int length, Row *rows) {
    while (last != first)
        run_pass<Twiddles::before>(*--last, length, values(rows) + kLanes, values(rows));
}

// A pass leaves transforms of `span` points to be done: what is too long for the cache is cut there.
void forward(Passes first, Passes last, int length, Row *rows) {
    if (length <= kCached)
        return forward_passes(first, last, length, rows);
    forward_passes(first, first + 1, length, rows);
    for (int begin = 0; begin < length; begin += first->span)
        forward(first + 1, last, first->span, rows + begin);
}

void inverse(Passes first, Passes last, int length, Row *rows) {
    if (length <= kCached)
        return inverse_passes(first, last, length, rows);
    for (int begin = 0; begin < length; begin += first->span)
        inverse(first + 1, last, first->span, rows + begin);
    inverse_passes(first, first + 1, length, rows);
}

} // namespace

bool has_fft(std::int64_t length) {
    for (const int radix : kRadices)
        while (length > 0 && length % radix == 0)
            length /= radix;
    return length == 1;
}

FftPlan::FftPlan(int n) : length(n), position(static_cast<std::size_t>(n), 0) {
    for (int i = 0; i < length; ++i) {
        cosine.push_back(static_cast<float>(std::cos(kPi * i / length)));
        sine.push_back(static_cast<float>(-std::sin(kPi * i / length)));
    }
    int stride = 1; // frequencies that share the digits found so far are so far apart
    for (const int radix : kRadices)
        for (; n % radix == 0; n /= radix, stride *= radix) {
            Pass pass{radix, n / radix, {}, {}};
            const auto add = [](std::vector<float> &to, double turns) {
                to.push_back(static_cast<float>(std::cos(2 * kPi * turns)));
                to.push_back(static_cast<float>(-std::sin(2 * kPi * turns)));
            };
            for (int q = 0; q < radix; ++q)
                add(pass.roots, double(q) / radix);
            for (int j = 0; j < pass.span; ++j)
                for (int q = 1; q < radix; ++q)
                    add(pass.twiddles, double(j) * q / n);
            for (int frequency = 0; frequency < length; ++frequency)
                position[static_cast<std::size_t>(frequency)] += frequency / stride % radix * pass.span;
            passes.push_back(std::move(pass));
        }
}

const FftPlan &plan_of(std::int64_t length) {
    static std::mutex mutex;
    static std::map<std::int64_t, std::unique_ptr<const FftPlan>> plans;
    const std::lock_guard<std::mutex> lock(mutex);
    std::unique_ptr<const FftPlan> &plan = plans[length];
    if (!plan)
        plan = std::make_unique<const FftPlan>(static_cast<int>(length));
    return *plan;
}

void fft_forward(const FftPlan &plan, Row *rows) {
    forward(plan.passes.data(), plan.passes.data() + plan.passes.size(), plan.length, rows);
}

void fft_inverse(const FftPlan &plan, Row *rows) {
    inverse(plan.passes.data(), plan.passes.data() + plan.passes.size(), plan.length, rows);
}

} // namespace latentdem
