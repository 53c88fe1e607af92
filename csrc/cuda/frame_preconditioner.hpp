// The preconditioner of masked_proximal: exact inverses on the rows and columns of a photograph's frame; the formulas
// are in latentdem_ext/reference/frame_preconditioner.py. All arrays are contiguous.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>
#include <vector_types.h>

namespace latentdem::cuda {

constexpr int kBand = 96; // lines of a band at most

// A band of rows or of columns, as the mask has it.
struct FrameBand {
    int count, gap; // lines with blocks, lines of the whole frame
    int lines[kBand];
};

// Bands and inverses of their blocks, from the mask and the transfer function.
struct FramePreconditioner {
    const float *mask;  // masks x height x width
    const float2 *otf;  // batch x height x columns
    const float *rho;   // batch
    int *measured;      // height + width: whether the line has a measured pixel
    FrameBand *bands;   // of rows, of columns
    int *places;        // height + width: the number of a line in its band, or -1
    float *inverses[2]; // batch x frequencies along the lines x kBand^2, of which count^2 are used
    std::int64_t batch, masks;
    int height, width;
    double least; // eigenvalue of the blocks
};

cudaError_t launch(const FramePreconditioner &frame, cudaStream_t stream);

} // namespace latentdem::cuda
