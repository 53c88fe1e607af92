// Inverses of a convolution T restricted to whole lines of a grid: a band of the frame around a photograph
// (reference.FramePreconditioner). A real transform along the lines leaves one block for each frequency.
#pragma once

#include <cstdint>
#include <vector>

#include "lane_fft.hpp"
#include "plane_fft.hpp"

namespace latentdem {

class FrameBand {
  public:
    // `lines`: their places across the grid of `across` lines, symmetric about their middle; each has `length` points.
    FrameBand(const std::int64_t *lines, std::int64_t count, std::int64_t across, std::int64_t length);

    // Eigenvalues of T at a frequency k across the lines, from 0 to across / 2, and its opposite, added and subtracted:
    // rows of `stride` frequencies along the lines, zero beyond the last one.
    void factor(const double *even, const double *odd, std::int64_t stride);

    // index(line place, point along it): the place of a value in the vectors that `solve` takes.
    template <class Index>
    void place(const Index &index) {
        for (std::int64_t block = 0; block < blocks_; ++block)
            for (std::int64_t n = 0; n < length_; ++n)
                for (int lane = 0; lane < kLanes; ++lane) {
                    const std::int64_t line = block * kLanes + lane;
                    index_[(block * length_ + n) * kLanes + lane] =
                        line < count_ ? static_cast<std::int32_t>(index(lines_[line], n)) : nowhere_;
                }
    }

    // Values beyond the lines are read from, and added to, this place.
    void set_nowhere(std::int64_t place) { nowhere_ = static_cast<std::int32_t>(place); }

    // Adds the solutions for `channels` residuals, `stride` floats apart.
    void solve(const float *residual, std::int64_t channels, std::int64_t stride, float *solved);

    bool empty() const { return count_ == 0; }

  private:
    std::int64_t count_, across_, length_, blocks_, frequencies_;
    SequenceFft along_;
    std::vector<std::int64_t> lines_;
    std::vector<std::int32_t> index_;
    std::int32_t nowhere_ = 0;
    std::vector<Values> inverse_; // frequency block, row, column
    std::vector<Row> line_, frequency_, spectra_;
    std::vector<Values> folded_, unfolded_;
    std::vector<double> matrix_, lags_; // of one block of frequencies; lags: real and imaginary, distance
    std::vector<std::int64_t> offset_;  // of a line from the first one
    std::vector<double> cosine_;        // of 2 pi n / across, then its sine
};

} // namespace latentdem
