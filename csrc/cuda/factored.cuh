// The solution with a Cholesky factor, by one block: panels of 32 unknowns, whose triangle is solved one unknown at a
// time after what the solved ones contribute has been subtracted by all threads.
#pragma once

#include "grid_passes.cuh"

namespace latentdem::cuda {

constexpr int kPanel = 32;
constexpr int kShares = kThreads / kPanel; // threads that add up what is subtracted from one unknown
static_assert(kPanel * (kPanel + 1) + kThreads + kPanel <= 4 * kLeastNumbers, "what it has in shared memory");

// (L L^T) solution = right, L being the lower triangle of `factor` (count x count).
class Factored {
  public:
    __device__ Factored(float *memory, const float *factor, int count)
        : triangle_(memory), shares_(memory + kPanel * (kPanel + 1)), solved_(shares_ + kThreads), factor_(factor),
          count_(count) {}

    __device__ void solve(const float *right, float *solution) {
        for (int first = 0; first < count_; first += kPanel)
            panel<false>(first, right, solution);
        for (int first = (count_ - 1) / kPanel * kPanel; first >= 0; first -= kPanel)
            panel<true>(first, solution, solution);
    }

  private:
    float *triangle_, *shares_, *solved_;
    const float *factor_;
    int count_;

    __device__ float entry(int i, int j) const { return factor_[static_cast<std::int64_t>(i) * count_ + j]; }

    template <bool Transposed>
    __device__ void panel(int first, const float *right, float *solution) {
        const int thread = static_cast<int>(threadIdx.x);
        const int size = count_ - first < kPanel ? count_ - first : kPanel;
        __syncthreads(); // the last panel is written
        // Neighbouring threads read neighbours: along a row of L, and of its transpose along a column.
        const int unknown = Transposed ? thread % kPanel : thread / kShares;
        const int share = Transposed ? thread / kPanel : thread % kShares;
        float sum = 0.0f;
        if (unknown < size) {
            const int begin = Transposed ? first + kPanel : 0, end = Transposed ? count_ : first;
#pragma unroll 8
            for (int n = begin + share; n < end; n += kShares)
                sum += (Transposed ? entry(n, first + unknown) : entry(first + unknown, n)) * solution[n];
        }
        shares_[unknown * kShares + share] = sum;
        for (int n = thread; n < kPanel * kPanel; n += kThreads) {
            const int i = n / kPanel, j = n % kPanel;
            triangle_[i * (kPanel + 1) + j] = i < size && j <= i ? entry(first + i, first + j) : 0.0f;
        }
        __syncthreads();
        float left = 0.0f;
        if (thread < size) {
            left = right[first + thread];
            for (int n = 0; n < kShares; ++n)
                left -= shares_[thread * kShares + n];
        }
        for (int n = 0; n < size; ++n) {
            const int next = Transposed ? size - 1 - n : n;
            if (thread == next)
                solution[first + next] = solved_[next] = left / triangle_[next * (kPanel + 2)];
            __syncthreads();
            if (thread < size && (Transposed ? thread < next : thread > next))
                left -= triangle_[(Transposed ? next * (kPanel + 1) + thread : thread * (kPanel + 1) + next)] *
                        solved_[next];
        }
    }
};

} // namespace latentdem::cuda
