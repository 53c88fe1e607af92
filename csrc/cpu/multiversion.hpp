// LATENTDEM_MULTIVERSION before a function compiles it once for every listed instruction set; the loader picks
// the best one the machine has, so the module needs no particular machine. The sets are named by their features: the
// version for an "arch=" of a product is taken on exactly that processor and on none of its successors. A helper that
// such a function calls in its inner loops has to become part of it, or it would be compiled for the oldest machine
// alone: LATENTDEM_INLINE. LATENTDEM_INDEPENDENT before a loop says that its iterations do not touch each other's data,
// LATENTDEM_UNROLL before a loop of constant length that it must vanish, so that arrays become registers.
#pragma once

#if !defined(__x86_64__) || !defined(__linux__) || !defined(__GNUC__) || defined(__clang__)
#define LATENTDEM_MULTIVERSION
#elif __GNUC__ >= 12
#define LATENTDEM_MULTIVERSION __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define LATENTDEM_MULTIVERSION __attribute__((target_clones("default", "avx2", "avx512f")))
#endif

#if defined(__clang__)
#define LATENTDEM_INLINE inline __attribute__((always_inline))
#define LATENTDEM_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#define LATENTDEM_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define LATENTDEM_INLINE inline __attribute__((always_inline))
#define LATENTDEM_INDEPENDENT _Pragma("GCC ivdep")
#define LATENTDEM_UNROLL _Pragma("GCC unroll 16")
#elif defined(_MSC_VER)
#define LATENTDEM_INLINE __forceinline
#define LATENTDEM_INDEPENDENT __pragma(loop(ivdep))
#define LATENTDEM_UNROLL
#else
#define LATENTDEM_INLINE inline
#define LATENTDEM_INDEPENDENT
#define LATENTDEM_UNROLL
#endif
