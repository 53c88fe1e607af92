// Memory of a device in exact allocations, and launches that are repeated until their bits differ.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <cuda_runtime.h>

using Floats = std::vector<float>;

#ifdef LATENTDEM_SHIM
extern "C" void latentdem_shim_order(unsigned order);
#else
inline void latentdem_shim_order(unsigned) {} // a GPU chooses for itself
#endif

inline int failures = 0;
inline bool fill = true; // whether outputs hold NaN before a launch

inline void expect_success(const std::string &name, cudaError_t error) {
    if (error != cudaSuccess) {
        std::printf("%s: %s\n", name.c_str(), cudaGetErrorString(error));
        ++failures;
    }
}

// Numbers in memory of the device, in an allocation of their own.
class Array {
  public:
    explicit Array(std::size_t size) : size_(size) {
        expect_success("cudaMalloc", cudaMalloc(&numbers_, size * sizeof(float)));
    }
    explicit Array(const Floats &values) : Array(values.size()) {
        expect_success("cudaMemcpy",
                       cudaMemcpy(numbers_, values.data(), size_ * sizeof(float), cudaMemcpyHostToDevice));
    }
    Array(const Array &) = delete;
    Array &operator=(const Array &) = delete;
    ~Array() { cudaFree(numbers_); }

    float *get() { return static_cast<float *>(numbers_); }
    float2 *complex() { return static_cast<float2 *>(numbers_); }

    void append_to(Floats &found) const {
        const std::size_t before = found.size();
        found.resize(before + size_);
        // Waits for the kernel, whose errors come out here.
        expect_success("kernel",
                       cudaMemcpy(found.data() + before, numbers_, size_ * sizeof(float), cudaMemcpyDeviceToHost));
    }

  private:
    void *numbers_ = nullptr;
    std::size_t size_;
};

inline Floats random_floats(std::size_t size) {
    static std::mt19937 generator;
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    Floats found(size);
    for (float &value : found)
        value = uniform(generator);
    return found;
}

// An output that a kernel has to write whole.
struct Output : Array {
    explicit Output(std::size_t size) : Array(size) {
        if (fill) // all bits set are a NaN
            expect_success("cudaMemset", cudaMemset(get(), 0xff, size * sizeof(float)));
    }
};

// `run` gives the outputs of one launch.
inline void repeat(const std::string &name, const std::function<Floats()> &run) {
    Floats first;
    for (unsigned order = 0; order < 4; ++order) {
        latentdem_shim_order(order);
        const Floats found = run();
        if (order == 0)
            first = found;
        bool wrong = std::memcmp(first.data(), found.data(), sizeof(float) * found.size()) != 0;
        for (const float value : found)
            wrong |= std::isnan(value);
        if (wrong) {
            std::printf("%s: wrong in run %u\n", name.c_str(), order);
            ++failures;
        }
    }
}
