// The scheduler of the shim. A thread of a block is a fiber that runs until a barrier; when all wait, the barrier
// opens if every thread it is for stands at it, and stands at the same one, else the launch fails. The order of the
// threads between two barriers is free in CUDA: here it is chosen (latentdem_shim_order), and results must not
// depend on it.
#include "cuda_runtime.h"

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <ucontext.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace shim {
namespace {

constexpr std::size_t kStack = 128 << 10;
constexpr std::size_t kWarp = 32;
constexpr unsigned kThreads = 1024;    // of a block, at most
constexpr int kSharedLimit = 99 << 10; // of a block on compute capability 8.6 and 8.9, the smallest of all
constexpr int kSharedWithoutAsking = 48 << 10;

enum class State { ready, at_grid_barrier, at_block_barrier, at_warp_barrier, done };

struct Fiber {
    Thread where;
    State state = State::ready;
    const char *file = "";
    int line = 0;
    float given[2] = {}; // to shuffles, in turn: a lane may enter the next one before all have read
    unsigned shuffles = 0;
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[kStack]};
    void *fake_stack = nullptr; // of AddressSanitizer
};

std::vector<Fiber> fibers(3 * 512); // as many as the processors of the device hold of the largest cooperative kernel
std::size_t count;                  // of the threads of all blocks that run together
std::size_t threads;                // of a block
Fiber *running;
ucontext_t scheduler;
const std::function<void()> *program;
std::vector<std::vector<char>> shared_memory; // of each of them
std::map<const void *, int> allowed;
unsigned order;
std::mt19937 generator;
cudaError_t last_error = cudaSuccess;
std::string message;

void fail(std::string why) {
    last_error = cudaErrorLaunchFailure;
    message = std::move(why);
}

#ifdef __SANITIZE_ADDRESS__
const void *scheduler_stack;
std::size_t scheduler_stack_size;

void leave(void **fake_stack, const void *stack, std::size_t size) {
    __sanitizer_start_switch_fiber(fake_stack, stack, size);
}
void arrive(void *fake_stack, const void **stack, std::size_t *size) {
    __sanitizer_finish_switch_fiber(fake_stack, stack, size);
}
#endif

void to_scheduler() {
    Fiber &self = *running;
#ifdef __SANITIZE_ADDRESS__
    leave(self.state == State::done ? nullptr : &self.fake_stack, scheduler_stack, scheduler_stack_size);
#endif
    swapcontext(&self.context, &scheduler);
#ifdef __SANITIZE_ADDRESS__
    arrive(self.fake_stack, &scheduler_stack, &scheduler_stack_size);
#endif
}

void to_fiber(Fiber &fiber) {
    running = &fiber;
#ifdef __SANITIZE_ADDRESS__
    void *own = nullptr;
    leave(&own, fiber.stack.get(), kStack);
#endif
    swapcontext(&scheduler, &fiber.context);
#ifdef __SANITIZE_ADDRESS__
    arrive(own, nullptr, nullptr);
#endif
}

void wait(State barrier, const char *file, int line) {
    running->state = barrier;
    running->file = file;
    running->line = line;
    to_scheduler();
}

void fiber_main() {
#ifdef __SANITIZE_ADDRESS__
    arrive(nullptr, &scheduler_stack, &scheduler_stack_size);
#endif
    (*program)();
    running->state = State::done;
    to_scheduler();
}

void start(Fiber &fiber, const Thread &where) {
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(fiber.stack.get(), kStack); // what the last thread left
#endif
    fiber.where = where;
    fiber.state = State::ready;
    fiber.shuffles = 0;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    makecontext(&fiber.context, fiber_main, 0);
}

std::vector<std::size_t> permutation(std::size_t size) {
    std::vector<std::size_t> found(size);
    for (std::size_t i = 0; i < size; ++i)
        found[i] = order == 1 ? size - 1 - i : i;
    if (order > 1)
        std::shuffle(found.begin(), found.end(), generator);
    return found;
}

// Makes the threads begin ... end ready if all of them stand at one and the same barrier of that kind.
bool open(State barrier, std::size_t begin, std::size_t end) {
    const Fiber &first = fibers[begin];
    for (std::size_t i = begin; i < end; ++i)
        if (fibers[i].state != barrier || fibers[i].file != first.file || fibers[i].line != first.line)
            return false;
    for (std::size_t i = begin; i < end; ++i)
        fibers[i].state = State::ready;
    return true;
}

std::string place(std::size_t i) {
    const Fiber &fiber = fibers[i];
    const std::string thread = "thread " + std::to_string(i);
    return fiber.state == State::done ? thread + " has ended"
                                      : thread + " waits at " + fiber.file + ":" + std::to_string(fiber.line);
}

// Runs the blocks that were started; false where their threads wait for each other in vain.
bool run_blocks() {
    for (;;) {
        for (const std::size_t i : permutation(count))
            if (fibers[i].state == State::ready)
                to_fiber(fibers[i]);
        bool opened = open(State::at_grid_barrier, 0, count);
        for (std::size_t block = 0; block < count; block += threads)
            opened |= open(State::at_block_barrier, block, block + threads);
        for (std::size_t warp = 0; warp < count; warp += kWarp)
            opened |= open(State::at_warp_barrier, warp, std::min(warp + kWarp, count));
        if (opened)
            continue;
        std::size_t odd = 0;
        while (odd < count && fibers[odd].state == State::done)
            ++odd;
        if (odd == count)
            return true;
        const auto same = [&](const Fiber &a, const Fiber &b) { return a.state == b.state && a.line == b.line; };
        std::size_t other = 0;
        while (other < count && same(fibers[other], fibers[odd]))
            ++other;
        fail("barrier divergence: " + place(odd) + (other < count ? ", " + place(other) : ""));
        return false;
    }
}

} // namespace

const Thread &current() { return running->where; }

void *dynamic_shared() { return shared_memory[static_cast<std::size_t>(running - fibers.data()) / threads].data(); }

void allow_dynamic_shared(const void *kernel, int bytes) { allowed[kernel] = bytes; }

void wait_for_block(const char *file, int line) { wait(State::at_block_barrier, file, line); }

void wait_for_grid(const char *file, int line) { wait(State::at_grid_barrier, file, line); }

float shuffle_down(float value, unsigned offset, const char *file, int line) {
    Fiber &self = *running;
    const std::size_t index = static_cast<std::size_t>(&self - fibers.data());
    const unsigned turn = self.shuffles++ % 2;
    self.given[turn] = value;
    wait(State::at_warp_barrier, file, line);
    return index % kWarp + offset < kWarp && index + offset < count ? fibers[index + offset].given[turn] : value;
}

namespace {

// Starts the threads of one more block beside those that were started.
void start_block(dim3 block, dim3 grid, dim3 here, std::size_t shared) {
    shared_memory.emplace_back(shared, '\xff'); // reads before a write give NaN
    for (unsigned thread = 0; thread < block.x; ++thread)
        start(fibers[count++], {dim3(thread, 0, 0), dim3(here.x, here.y, 0), grid});
}

bool is_valid(const void *kernel, dim3 grid, dim3 block, std::size_t shared) {
    const int limit = allowed.count(kernel) ? std::min(allowed[kernel], kSharedLimit) : kSharedWithoutAsking;
    return grid.x != 0 && grid.y != 0 && grid.y <= 65535 && grid.z == 1 && block.x != 0 && block.x <= kThreads &&
           block.y == 1 && block.z == 1 && static_cast<int>(shared) <= limit;
}

void prepare(const std::function<void()> &body, dim3 block) {
    program = &body;
    threads = block.x;
    generator.seed(order);
}

void clear() {
    count = 0;
    shared_memory.clear();
}

} // namespace

void launch(const void *kernel, dim3 grid, dim3 block, std::size_t shared, const std::function<void()> &body) {
    if (!is_valid(kernel, grid, block, shared)) {
        last_error = cudaErrorInvalidValue;
        return;
    }
    prepare(body, block);
    for (const std::size_t i : permutation(std::size_t{grid.x} * grid.y)) {
        clear();
        start_block(block, grid, dim3(static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x)), shared);
        if (!run_blocks())
            return;
    }
}

cudaError_t launch_cooperative(const void *kernel, dim3 grid, dim3 block, std::size_t shared,
                               const std::function<void()> &body) {
    int processors = 0;
    cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0);
    if (!is_valid(kernel, grid, block, shared) || block.x % kWarp != 0 || grid.x > static_cast<unsigned>(processors) ||
        grid.y != 1 || grid.x * block.x > fibers.size())
        return cudaErrorInvalidValue;
    prepare(body, block);
    clear();
    for (unsigned i = 0; i < grid.x; ++i)
        start_block(block, grid, dim3(i, 0), shared);
    run_blocks();
    return cudaGetLastError();
}

} // namespace shim

cudaError_t cudaGetLastError() {
    const cudaError_t error = shim::last_error;
    shim::last_error = cudaSuccess;
    return error;
}

const char *cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorLaunchFailure  ? shim::message.c_str()
           : error == cudaErrorInvalidValue ? "invalid argument"
                                            : "no error";
}

// 0: ascending, 1: descending, else the seed of a random order.
extern "C" void latentdem_shim_order(unsigned order) { shim::order = order; }
