// The passes between the row transforms of the blur operations (reference.blur, blur_adjoint, blur_fidelity,
// blur_proximal), and the last pass of the fidelity. F k is the transfer function, r = F y - F k F x.
#pragma once

#include <cstdint>

namespace latentdem {

// Images are given by the transforms of their rows, complex.
struct Blur {
    float *x;            // batch x channels x height x columns, replaced by the result
    const float *kernel; // batch x size x columns: F k has its origin at row size / 2, at column 0
    const float *y;      // as x; null for a product F k F x, or its adjoint
    const double *rho;   // batch, for conj(F k) r / (|F k|^2 + rho); null for conj(F k) r
    double *norm2;       // batch, the sum of |r|^2 over the whole spectrum; where rho is null
    std::int64_t batch, channels, height, columns, size;
    bool adjoint;    // of the product
    bool whole_y;    // the columns of y have been transformed too
    bool even_width; // of the images
    int threads;
};

void blur(const Blur &task);

// From the correction c = A^T (y - A x) to the gradient -2 c, in its place, and the gluing target x + c; `count` values
// each.
void finish_fidelity(const float *x, float *correction, float *glued, std::int64_t count, int threads);

} // namespace latentdem
