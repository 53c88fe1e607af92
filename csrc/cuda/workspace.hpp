// Arrays in one piece of device memory.
#pragma once

#include <cstddef>

namespace latentdem::cuda {

class Workspace {
  public:
    explicit Workspace(void *memory) : memory_(static_cast<char *>(memory)) {}

    // The next array of `count` values; an address without meaning where there is no memory yet.
    template <class T>
    T *take(std::size_t count) {
        char *const start = memory_ ? memory_ + bytes_ : nullptr;
        bytes_ += (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
        return reinterpret_cast<T *>(start);
    }

    std::size_t bytes() const { return bytes_; }

  private:
    static constexpr std::size_t kAlignment = 256;
    char *memory_;
    std::size_t bytes_ = 0;
};

} // namespace latentdem::cuda
