// silu(group_norm(x)) on float32 or bfloat16 arrays, what the backward pass needs of it, and its gradients.
#pragma once

#include <cstdint>

#include "group_norm_tiles.hpp"

namespace latentdem {

// batch x channels x spatial, or batch x spatial x channels where channels_last.
struct GroupNormShape {
    std::int64_t batch, channels, spatial, groups;
    bool channels_last;
    int threads; // at most this many
};

template <class T>
struct GroupNormSilu {
    GroupNormShape shape;
    const T *x;
    const float *weight, *bias; // channels
    T *y;
    float *mean, *rstd; // batch x groups: mean and 1 / sqrt(variance + eps)
    double eps;
};

template <class T>
struct GroupNormSiluBackward {
    GroupNormShape shape;
    const T *grad, *x;
    const float *weight, *bias; // channels
    const float *mean, *rstd;   // batch x groups, of the forward pass
    T *grad_x;
    double *grad_weight, *grad_bias; // batch x channels: the share of each sample
};

// Both exist for T = float and T = BFloat16.

template <class T>
void group_norm_silu(const GroupNormSilu<T> &op);

template <class T>
void group_norm_silu_backward(const GroupNormSiluBackward<T> &op);

} // namespace latentdem
