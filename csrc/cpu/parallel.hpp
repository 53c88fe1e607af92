// Splitting a range over threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <system_error>
#include <thread>
#include <vector>

namespace latentdem {

// Calls body(begin, end) for consecutive parts of [0, total), each of at least `grain` items, on at most `threads`
// threads, and returns when all are done. Threads start and end with the call: nothing is left behind that a fork
// could break or that could compete with PyTorch's own threads, and tens of microseconds a call are small against
// the grain. `body` must not throw.
template <class Body>
void parallel_for(std::int64_t total, std::int64_t grain, int threads, const Body &body) {
    const std::int64_t parts = std::max<std::int64_t>(1, std::min<std::int64_t>(threads, total / grain));
    const auto bound = [=](std::int64_t part) { return total * part / parts; };
    std::vector<std::thread> workers;
    workers.reserve(static_cast<std::size_t>(parts - 1));
    for (std::int64_t part = 1; part < parts; ++part)
        try {
            workers.emplace_back(std::cref(body), bound(part), bound(part + 1));
        } catch (const std::system_error &) { // no more threads to be had
            body(bound(part), bound(part + 1));
        }
    body(std::int64_t{0}, bound(1));
    for (std::thread &worker : workers)
        worker.join();
}

} // namespace latentdem
