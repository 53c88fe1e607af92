// 3 x 3 convolution by Winograd's F(4 x 4, 3 x 3) (Lavin and Gray 2016): 36 multiplications for each tile of 4 x 4
// outputs and pair of channels instead of 144.
#pragma once

#include <cstdint>

namespace latentdem {

// Images are channels last, batch x height x width x channels; pixels beyond them are zero.
struct Convolution {
    const float *x;
    const float *u; // the kernel, transformed: 36 x panels x channels x 16, with 16 outputs in a panel
    const float *bias;
    float *y;
    std::int64_t batch, height, width, channels, outputs; // height and width of the result
    bool doubled; // every pixel of x is repeated twice each way; the image of these is never written
};

void convolve(const Convolution &a, int threads);

} // namespace latentdem
