#include "conjugate_gradients.hpp"

#include "lane_fft.hpp"
#include "multiversion.hpp"

namespace latentdem {

LATENTDEM_MULTIVERSION double inner_product(const float *a, const float *b, std::int64_t count) {
    double sums[kLanes] = {}, sum = 0;
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        LATENTDEM_INDEPENDENT
        for (int lane = 0; lane < kLanes; ++lane)
            sums[lane] += a[i + lane] * b[i + lane];
    }
    for (; i < count; ++i)
        sum += a[i] * b[i];
    for (const double part : sums)
        sum += part;
    return sum;
}

LATENTDEM_MULTIVERSION void combine(const float *a, float factor, const float *b, std::int64_t count, float *to) {
    LATENTDEM_INDEPENDENT
    for (std::int64_t i = 0; i < count; ++i)
        to[i] = a[i] + factor * b[i];
}

} // namespace latentdem
