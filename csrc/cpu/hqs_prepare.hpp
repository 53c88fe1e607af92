// Everything between the row transforms of reference.hqs_prepare: from the transformed rows of images and measurement
// to those of the data term F^-1[N / (D + a)] and of the response g = F^-1[a / (D + a)] at the lags that count.
#pragma once

#include <cstdint>

namespace latentdem {

// Images are given by the transforms of their rows, complex.
struct HqsPrepare {
    const float *x;       // batch x samples x channels x height x columns
    const float *y;       // batch x channels x height x columns
    const double *weight; // batch, the a above
    float *lags;          // batch x 2 x (2 size - 1) x columns: rows 1 - size..size - 1 of the two results
    std::int64_t batch, samples, channels, height, columns, size;
    bool per_channel; // average the quotients of the channels; else sum N and D over them
    bool whole_y;     // the columns of y have been transformed too
    int threads;
};

void hqs_prepare(const HqsPrepare &task);

} // namespace latentdem
