#include "frame_preconditioner.hpp"

#include <algorithm>

#include "columns.hpp"
#include "multiversion.hpp"

namespace latentdem {
namespace {

LATENTDEM_MULTIVERSION void scale_each(const float *values, const float *factor, float common, std::int64_t count,
                                       float *to) {
    LATENTDEM_INDEPENDENT
    for (std::int64_t i = 0; i < count; ++i)
        to[i] = common * factor[i] * values[i];
}

// Eigenvalues of T at the frequencies (k, u) and (-k, u), added and subtracted, in double precision: the blocks of the
// bands need more digits than the images. `otf`: rows of `columns` complex numbers.
LATENTDEM_MULTIVERSION void opposite_eigenvalues(const float *otf, const float *opposite, std::int64_t columns,
                                                 double rho, double least, double *even, double *odd) {
    LATENTDEM_INDEPENDENT
    for (std::int64_t u = 0; u < columns; ++u) {
        const double a_re = otf[2 * u], a_im = otf[2 * u + 1], b_re = opposite[2 * u], b_im = opposite[2 * u + 1];
        const double a = rho / (a_re * a_re + a_im * a_im + rho), b = rho / (b_re * b_re + b_im * b_im + rho);
        even[u] = std::max(a, least) + std::max(b, least);
        odd[u] = std::max(a, least) - std::max(b, least);
    }
}

} // namespace

FramePreconditioner::FramePreconditioner(std::int64_t height, std::int64_t width, const std::int64_t *rows,
                                         std::int64_t row_count, const std::int64_t *columns, std::int64_t column_count)
    : height_(height), width_(width), across_(rows, row_count, height, width),
      down_(columns, column_count, width, height), across_stride_(blocks_of(width / 2 + 1) * kLanes),
      down_stride_(blocks_of(height / 2 + 1) * kLanes), across_even_((height / 2 + 1) * across_stride_),
      across_odd_(across_even_.size()), down_even_((width / 2 + 1) * down_stride_), down_odd_(down_even_.size()) {}

void FramePreconditioner::place(const Gaps &gaps) {
    gaps_ = &gaps;
    for (FrameBand *const band : {&across_, &down_})
        band->set_nowhere(gaps.count);
    across_.place([&](std::int64_t row, std::int64_t n) { return gaps.number[row * width_ + n]; });
    down_.place([&](std::int64_t column, std::int64_t n) { return gaps.number[n * width_ + column]; });
}

void FramePreconditioner::factor(const float *otf, double rho, double least) {
    const std::int64_t columns = width_ / 2 + 1;
    double sum = 0; // of all eigenvalues
    for (std::int64_t k = 0; 2 * k <= height_; ++k) {
        double *const even = &across_even_[k * across_stride_], *const odd = &across_odd_[k * across_stride_];
        const std::int64_t opposite = k == 0 ? 0 : height_ - k;
        opposite_eigenvalues(otf + 2 * k * columns, otf + 2 * opposite * columns, columns, rho, least, even, odd);
        for (std::int64_t u = 0; u < columns; ++u) {
            const bool edge = k == 0 || 2 * k == height_, side = u == 0 || 2 * u == width_;
            sum += (edge ? 0.5 : 1.0) * (side ? 1.0 : 2.0) * even[u];
            down_even_[u * down_stride_ + k] = even[u];
            down_odd_[u * down_stride_ + k] = odd[u];
        }
    }
    diagonal_ = static_cast<float>(double(height_) * double(width_) / sum);
    across_.factor(across_even_.data(), across_odd_.data(), across_stride_);
    down_.factor(down_even_.data(), down_odd_.data(), down_stride_);
}

void FramePreconditioner::solve(const float *residual, std::int64_t channels, float *solved) {
    const std::int64_t stride = gaps_->padded;
    for (std::int64_t c = 0; c < channels; ++c)
        scale_each(residual + c * stride, gaps_->hole.data(), diagonal_, stride, solved + c * stride);
    across_.solve(residual, channels, stride, solved);
    down_.solve(residual, channels, stride, solved);
    for (std::int64_t c = 0; c < channels; ++c)
        solved[c * stride + gaps_->count] = 0; // where the bands leave what is beyond their lines
}

} // namespace latentdem
