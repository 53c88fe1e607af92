// How kernels are started and get their dynamic shared memory. Macros, because tests/native compiles the same
// sources with a C++ compiler: its cuda_runtime.h defines both for threads that run one after another.
#pragma once

#include <cuda_runtime.h>

#ifndef LATENTDEM_LAUNCH
#define LATENTDEM_LAUNCH(kernel, grid, block, shared, stream, ...) kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)
#endif

#ifndef LATENTDEM_DYNAMIC_SHARED
#define LATENTDEM_DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif
