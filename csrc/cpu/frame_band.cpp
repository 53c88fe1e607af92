#include "frame_band.hpp"

#include <algorithm>
#include <cmath>

#include "columns.hpp"
#include "lane_tiles.hpp"
#include "multiversion.hpp"

namespace latentdem {
namespace {

using Lanes = double[kLanes];

// The response of T between lines d apart: sum_k even cos(2 pi k d / across) + i odd sin(2 pi k d / across), for one
// block of frequencies along the lines.
LATENTDEM_MULTIVERSION void response(const double *even, const double *odd, std::int64_t stride, std::int64_t across,
                                     const double *cosine, std::int64_t distance, Lanes &re, Lanes &im) {
    Lanes sum = {}, turned = {};
    for (std::int64_t k = 0; 2 * k <= across; ++k, even += stride, odd += stride) {
        const std::int64_t turn = k * distance % across;
        const double weight = (k == 0 || 2 * k == across ? 0.5 : 1.0) / static_cast<double>(across);
        const double c = weight * cosine[turn], s = weight * cosine[across + turn];
        LATENTDEM_INDEPENDENT
        for (int lane = 0; lane < kLanes; ++lane) {
            sum[lane] += c * even[lane];
            turned[lane] += s * odd[lane];
        }
    }
    for (int lane = 0; lane < kLanes; ++lane) {
        re[lane] = sum[lane];
        im[lane] = turned[lane];
    }
}

// The real matrices Re A + Im A J of one block of frequencies, to the lower triangle; J reverses a vector.
LATENTDEM_MULTIVERSION void fold_matrix(const Lanes *lags, const std::int64_t *offset, std::int64_t count, int lanes,
                                        Lanes *matrix) {
    for (std::int64_t i = 0; i < count; ++i)
        for (std::int64_t j = 0; j <= i; ++j) {
            Lanes &to = matrix[i * count + j];
            const std::int64_t straight = offset[i] - offset[j], reversed = offset[i] - offset[count - 1 - j];
            const double sign = reversed < 0 ? -1.0 : 1.0; // the response of -d is the conjugate of that of d
            const Lanes &re = lags[2 * straight], &im = lags[2 * std::abs(reversed) + 1];
            for (int lane = 0; lane < kLanes; ++lane)
                to[lane] = lane < lanes ? re[lane] + sign * im[lane] : i == j; // beyond the last: the identity
        }
}

// a -= sum_k b[k] c[k]
LATENTDEM_INLINE void subtract_products(Lanes &a, const Lanes *b, const Lanes *c, std::int64_t count,
                                        std::int64_t b_step, std::int64_t c_step) {
    Lanes sum;
    for (int lane = 0; lane < kLanes; ++lane)
        sum[lane] = a[lane];
    for (std::int64_t k = 0; k < count; ++k, b += b_step, c += c_step) {
        LATENTDEM_INDEPENDENT
        for (int lane = 0; lane < kLanes; ++lane)
            sum[lane] -= (*b)[lane] * (*c)[lane];
    }
    for (int lane = 0; lane < kLanes; ++lane)
        a[lane] = sum[lane];
}

// From the lower triangle of symmetric positive definite matrices A = L L^T to the lower triangle of L^-1.
LATENTDEM_MULTIVERSION void invert_factor(Lanes *matrix, std::int64_t count) {
    const auto at = [=](std::int64_t i, std::int64_t j) -> Lanes & { return matrix[i * count + j]; };
    for (std::int64_t j = 0; j < count; ++j)
        for (std::int64_t i = j; i < count; ++i) {
            subtract_products(at(i, j), &at(i, 0), &at(j, 0), j, 1, 1);
            Lanes &diagonal = at(j, j), &value = at(i, j);
            if (i == j) // the inverse of the diagonal, which is all that follows needs
                for (int lane = 0; lane < kLanes; ++lane)
                    diagonal[lane] = 1 / std::sqrt(diagonal[lane]);
            else
                for (int lane = 0; lane < kLanes; ++lane)
                    value[lane] *= diagonal[lane];
        }
    for (std::int64_t j = 0; j < count; ++j)
        for (std::int64_t i = j + 1; i < count; ++i) {
            Lanes &value = at(i, j), &diagonal = at(i, i);
            Lanes sum = {};
            subtract_products(sum, &at(i, j), &at(j, j), i - j, 1, count);
            for (int lane = 0; lane < kLanes; ++lane)
                value[lane] = sum[lane] * diagonal[lane];
        }
}

// scale L^-T L^-1
LATENTDEM_MULTIVERSION void multiply_factor(const Lanes *matrix, std::int64_t count, float scale, Values *inverse) {
    for (std::int64_t i = 0; i < count; ++i)
        for (std::int64_t j = 0; j <= i; ++j) {
            Lanes sum = {};
            subtract_products(sum, matrix + i * count + i, matrix + i * count + j, count - i, count, count);
            for (int lane = 0; lane < kLanes; ++lane)
                inverse[i * count + j].at[lane] = inverse[j * count + i].at[lane] =
                    -scale * static_cast<float>(sum[lane]);
        }
}

LATENTDEM_MULTIVERSION void gather_lines(const float *from, const std::int32_t *index, std::int64_t length,
                                         float *values) {
    for (std::int64_t i = 0; i < length * kLanes; ++i)
        values[i] = from[index[i]];
}

LATENTDEM_MULTIVERSION void transpose_lines(const Row *from, std::int64_t from_stride, Row *to, std::int64_t to_stride,
                                            std::int64_t tiles) {
    for (std::int64_t tile = 0; tile < tiles; ++tile)
        transpose_rows(from + tile * from_stride, to + tile * to_stride);
}

// Vectors of complex numbers to twice the two of real ones on which a block acts as its folded matrix, and back.
LATENTDEM_MULTIVERSION void fold(const Row *from, std::int64_t count, Values *one, Values *other) {
    for (std::int64_t i = 0; i < count; ++i) {
        const Row &a = from[i], &b = from[count - 1 - i];
        LATENTDEM_INDEPENDENT
        for (int lane = 0; lane < kLanes; ++lane) {
            one[i].at[lane] = a.re[lane] + a.im[lane] + b.re[lane] - b.im[lane];
            other[i].at[lane] = b.re[lane] + b.im[lane] - a.re[lane] + a.im[lane];
        }
    }
}

LATENTDEM_MULTIVERSION void unfold(const Values *one, const Values *other, std::int64_t count, Row *to) {
    for (std::int64_t i = 0; i < count; ++i) {
        const Values &a = one[i], &b = other[i], &c = one[count - 1 - i], &d = other[count - 1 - i];
        LATENTDEM_INDEPENDENT
        for (int lane = 0; lane < kLanes; ++lane) {
            const float plus = a.at[lane] + d.at[lane], minus = c.at[lane] - b.at[lane];
            to[i].re[lane] = plus + minus;
            to[i].im[lane] = plus - minus;
        }
    }
}

// `vectors` products of a matrix, whose entries are read once for all of them.
template <int vectors>
LATENTDEM_INLINE void multiply(const Values *matrix, const Values *in, std::int64_t count, Values *out) {
    for (std::int64_t i = 0; i < count; ++i) {
        Values sums[vectors] = {};
        for (std::int64_t j = 0; j < count; ++j) {
            const Values &entry = matrix[i * count + j];
            for (int v = 0; v < vectors; ++v) {
                LATENTDEM_INDEPENDENT
                for (int lane = 0; lane < kLanes; ++lane)
                    sums[v].at[lane] += entry.at[lane] * in[v * count + j].at[lane];
            }
        }
        for (int v = 0; v < vectors; ++v)
            out[v * count + i] = sums[v];
    }
}

LATENTDEM_MULTIVERSION void multiply_six(const Values *matrix, const Values *in, std::int64_t count, Values *out) {
    multiply<6>(matrix, in, count, out);
}

LATENTDEM_MULTIVERSION void multiply_two(const Values *matrix, const Values *in, std::int64_t count, Values *out) {
    multiply<2>(matrix, in, count, out);
}

} // namespace

FrameBand::FrameBand(const std::int64_t *lines, std::int64_t count, std::int64_t across, std::int64_t length)
    : count_(count), across_(across), length_(length), blocks_((count + kLanes - 1) / kLanes),
      frequencies_(length / 2 + 1), along_(length), lines_(lines, lines + count),
      index_(static_cast<std::size_t>(blocks_ * length * kLanes)) {
    for (const std::int64_t line : lines_)
        offset_.push_back((line - lines_[0] + across) % across);
    for (const double quarter : {0.0, 0.25})
        for (std::int64_t n = 0; n < across; ++n)
            cosine_.push_back(std::cos(2 * kPi * (double(n) / double(across) - quarter)));
}

void FrameBand::factor(const double *even, const double *odd, std::int64_t stride) {
    if (!count_)
        return;
    const std::int64_t groups = blocks_of(frequencies_);
    inverse_.resize(static_cast<std::size_t>(groups * count_ * count_));
    matrix_.resize(static_cast<std::size_t>(count_ * count_ * kLanes));
    lags_.resize(static_cast<std::size_t>(2 * (offset_.back() + 1) * kLanes));
    Lanes *const matrix = reinterpret_cast<Lanes *>(matrix_.data());
    Lanes *const lags = reinterpret_cast<Lanes *>(lags_.data());
    // Four by the folding and unfolding, 2 length by the transforms.
    const float scale = 1 / (8 * static_cast<float>(length_));
    for (std::int64_t group = 0; group < groups; ++group) {
        const std::int64_t first = group * kLanes;
        for (std::int64_t d = 0; d <= offset_.back(); ++d)
            response(even + first, odd + first, stride, across_, cosine_.data(), d, lags[2 * d], lags[2 * d + 1]);
        const int lanes = static_cast<int>(std::min<std::int64_t>(kLanes, frequencies_ - first));
        fold_matrix(lags, offset_.data(), count_, lanes, matrix);
        invert_factor(matrix, count_);
        multiply_factor(matrix, count_, scale, &inverse_[static_cast<std::size_t>(group * count_ * count_)]);
    }
}

void FrameBand::solve(const float *residual, std::int64_t channels, std::int64_t stride, float *solved) {
    if (!count_)
        return;
    const std::int64_t groups = blocks_of(frequencies_), lines = blocks_ * kLanes, plane = groups * lines;
    line_.resize(static_cast<std::size_t>(length_ / 2));
    frequency_.resize(static_cast<std::size_t>(groups * kLanes));
    spectra_.resize(static_cast<std::size_t>(channels * plane));
    folded_.resize(static_cast<std::size_t>(2 * channels * count_));
    unfolded_.resize(folded_.size());
    float *const values = reinterpret_cast<float *>(line_.data());
    for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t block = 0; block < blocks_; ++block) {
            gather_lines(residual + c * stride, &index_[block * length_ * kLanes], length_, values);
            along_.forward(line_.data(), frequency_.data());
            transpose_lines(frequency_.data(), kLanes, &spectra_[c * plane + block * kLanes], lines, groups);
        }
    for (std::int64_t group = 0; group < groups; ++group) {
        const Values *const matrix = &inverse_[static_cast<std::size_t>(group * count_ * count_)];
        for (std::int64_t c = 0; c < channels; ++c)
            fold(&spectra_[c * plane + group * lines], count_, &folded_[2 * c * count_],
                 &folded_[(2 * c + 1) * count_]);
        std::int64_t c = 0;
        for (; c + 3 <= channels; c += 3)
            multiply_six(matrix, &folded_[2 * c * count_], count_, &unfolded_[2 * c * count_]);
        for (; c < channels; ++c)
            multiply_two(matrix, &folded_[2 * c * count_], count_, &unfolded_[2 * c * count_]);
        for (c = 0; c < channels; ++c)
            unfold(&unfolded_[2 * c * count_], &unfolded_[(2 * c + 1) * count_], count_,
                   &spectra_[c * plane + group * lines]);
    }
    for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t block = 0; block < blocks_; ++block) {
            transpose_lines(&spectra_[c * plane + block * kLanes], lines, frequency_.data(), kLanes, groups);
            along_.inverse(frequency_.data(), line_.data());
            const std::int32_t *const index = &index_[block * length_ * kLanes];
            for (std::int64_t i = 0; i < length_ * kLanes; ++i)
                solved[c * stride + index[i]] += values[i];
        }
}

} // namespace latentdem
