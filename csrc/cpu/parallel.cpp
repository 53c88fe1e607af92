#include "parallel.hpp"

#include <cstddef>
#include <system_error>
#include <thread>

#if defined(__linux__)
#include <dlfcn.h>
#endif

namespace latentdem {
namespace {

using Parallel = void (*)(void (*run)(void *), void *context, unsigned threads, unsigned flags);

// The OpenMP runtime that PyTorch has brought into the process, if there is one. For a while its threads wait
// actively for their next task, so threads of our own would have to share the processors with them.
Parallel openmp() {
#if defined(__linux__)
    static const auto function = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return function;
#else
    return nullptr;
#endif
}

} // namespace

void run_on_threads(int threads, void (*run)(void *), void *context) {
    if (threads <= 1)
        return run(context);
    if (const Parallel parallel = openmp())
        return parallel(run, context, static_cast<unsigned>(threads), 0);
    std::vector<std::thread> workers;
    workers.reserve(static_cast<std::size_t>(threads - 1));
    try {
        while (workers.size() + 1 < static_cast<std::size_t>(threads))
            workers.emplace_back(run, context);
    } catch (const std::system_error &) { // the system has no more threads
    }
    run(context);
    for (std::thread &worker : workers)
        worker.join();
}

} // namespace latentdem
