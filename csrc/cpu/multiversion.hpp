// LATENTDEM_MULTIVERSION before a function compiles it once for every listed instruction set; the loader picks
// the best one the machine has, so the module needs no particular machine.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define LATENTDEM_MULTIVERSION __attribute__((target_clones("default", "arch=haswell", "arch=skylake-avx512")))
#else
#define LATENTDEM_MULTIVERSION
#endif
