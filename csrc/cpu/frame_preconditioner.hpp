// An approximate inverse of the convolution T restricted to the unmeasured pixels of a photograph
// (reference.FramePreconditioner): exact on each band of the frame alone, a multiple of the identity beyond them.
#pragma once

#include <cstdint>
#include <vector>

#include "frame_band.hpp"
#include "gaps.hpp"

namespace latentdem {

class FramePreconditioner {
  public:
    // `rows`, `columns`: the lines of the bands, as FrameBand takes them.
    FramePreconditioner(std::int64_t height, std::int64_t width, const std::int64_t *rows, std::int64_t row_count,
                        const std::int64_t *columns, std::int64_t column_count);

    // The vectors that `solve` takes are those of `gaps`, which has to stay.
    void place(const Gaps &gaps);

    // T has the eigenvalues rho / (|otf|^2 + rho), or `least` where they are less. `otf`: height x (width / 2 + 1),
    // complex.
    void factor(const float *otf, double rho, double least);

    void solve(const float *residual, std::int64_t channels, float *solved);

  private:
    std::int64_t height_, width_;
    const Gaps *gaps_ = nullptr;
    FrameBand across_, down_; // of rows, and of columns
    std::int64_t across_stride_, down_stride_;
    std::vector<double> across_even_, across_odd_, down_even_, down_odd_; // see FrameBand::factor
    float diagonal_ = 1;                                                  // beyond the bands
};

} // namespace latentdem
