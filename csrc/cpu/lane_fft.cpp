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
constexpr int kCached = 256; // points whose rows stay in the first-level cache from pass to pass
constexpr std::ptrdiff_t kRow = sizeof(Row) / sizeof(float);

struct Complex {
    float re, im;
};

LATENTDEM_INLINE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
LATENTDEM_INLINE Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
LATENTDEM_INLINE Complex operator*(Complex a, Complex b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
LATENTDEM_INLINE Complex minus_i(Complex a) { return {a.im, -a.re}; }

LATENTDEM_INLINE void dft(Complex (&x)[2]) {
    const Complex sum = x[0] + x[1], difference = x[0] - x[1];
    x[0] = sum;
    x[1] = difference;
}

LATENTDEM_INLINE void dft(Complex (&x)[4]) {
    const Complex even = x[0] + x[2], even_difference = x[0] - x[2];
    const Complex odd = x[1] + x[3], odd_difference = minus_i(x[1] - x[3]);
    x[0] = even + odd;
    x[1] = even_difference + odd_difference;
    x[2] = even - odd;
    x[3] = even_difference - odd_difference;
}

// Any odd radix, from sums s and differences d of the elements q and radix - q:
// X[k] = x[0] + sum_q cos(2 pi k q / radix) s[q] - i sin(2 pi k q / radix) d[q], and + for X[radix - k].
constexpr double power_series(double square, double term, int n) { // cosine from term 1, n 1; sine / x from 1, 2
    return n > 40 ? 0 : term + power_series(square, -term * square / (n * (n + 1)), n + 2);
}
constexpr float cosine(int turn, int radix) {
    const double angle = 2 * kPi * turn / radix;
    return static_cast<float>(power_series(angle * angle, 1, 1));
}
constexpr float sine(int turn, int radix) {
    const double angle = 2 * kPi * turn / radix;
    return static_cast<float>(angle * power_series(angle * angle, 1, 2));
}

template <int Radix, int k, int... q>
LATENTDEM_INLINE void odd_output(Complex first, const Complex *s, const Complex *d, Complex *x) {
    constexpr float cosines[] = {cosine(k * (q + 1) % Radix, Radix)...};
    constexpr float sines[] = {sine(k * (q + 1) % Radix, Radix)...};
    const Complex even{(first.re + ... + (cosines[q] * s[q].re)), (first.im + ... + (cosines[q] * s[q].im))};
    const Complex odd = minus_i({(0.0f + ... + (sines[q] * d[q].re)), (0.0f + ... + (sines[q] * d[q].im))});
    x[k] = even + odd;
    x[Radix - k] = even - odd;
}

template <int Radix, int... q>
LATENTDEM_INLINE void odd_dft(Complex (&x)[Radix], std::integer_sequence<int, q...>) {
    const Complex first = x[0];
    const Complex s[] = {x[q + 1] + x[Radix - 1 - q]...}, d[] = {x[q + 1] - x[Radix - 1 - q]...};
    x[0] = {(first.re + ... + s[q].re), (first.im + ... + s[q].im)};
    (odd_output<Radix, q + 1, q...>(first, s, d, x), ...);
}

template <int Radix>
LATENTDEM_INLINE void dft(Complex (&x)[Radix]) {
    odd_dft(x, std::make_integer_sequence<int, Radix / 2>{});
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
    case 7:
        return run_pass<7, twiddles>(pass, length, re, im);
    case 11:
        return run_pass<11, twiddles>(pass, length, re, im);
    case 13:
        return run_pass<13, twiddles>(pass, length, re, im);
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
            Pass pass{radix, n / radix, {}};
            const auto add = [](std::vector<float> &to, double turns) {
                to.push_back(static_cast<float>(std::cos(2 * kPi * turns)));
                to.push_back(static_cast<float>(-std::sin(2 * kPi * turns)));
            };
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
