// Complex FFTs of kLanes sequences at once, in place, of any length without a prime factor above 13.
//
// Row n holds point n of every sequence. All inner loops run over the lanes of a row, so they are the same for
// every radix and fill the vector registers of any machine. Forward transforms leave the frequencies in the order in
// which they come out and inverse transforms take them in that order: nothing is ever permuted.
#pragma once

#include <cstdint>
#include <vector>

namespace latentdem {

constexpr int kLanes = 16;
constexpr double kPi = 3.14159265358979323846;

struct alignas(64) Row {
    float re[kLanes], im[kLanes];
};

struct alignas(64) Values {
    float at[kLanes];
};

struct FftPlan {
    struct Pass {
        int radix, span;             // rows between the elements of a butterfly
        std::vector<float> twiddles; // span x (radix - 1) x (re, im): exp(-2 pi i j q / (radix span)), q from 1
    };

    explicit FftPlan(int length);

    int length;
    std::vector<Pass> passes;  // of a forward transform; an inverse one runs them backwards
    std::vector<int> position; // length: the row in which a frequency comes out
    // length: exp(-pi i n / length), with which a transform of twice the length, its second half zero, becomes two.
    std::vector<float> cosine, sine;
};

// Made once for every length.
const FftPlan &plan_of(std::int64_t length);

bool has_fft(std::int64_t length);

// Neither is scaled: inverse(forward(x)) is length * x.
void fft_forward(const FftPlan &plan, Row *rows);
void fft_inverse(const FftPlan &plan, Row *rows);

} // namespace latentdem
