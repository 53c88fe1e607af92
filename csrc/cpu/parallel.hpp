// Splitting work over threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

namespace latentdem {

// Calls run(context) on up to `threads` threads at once, this one among them, and returns when all calls have
// returned. `run` must not throw.
void run_on_threads(int threads, void (*run)(void *), void *context);

// Calls body(item, workspace) for every item of [0, total) on at most `threads` threads, `grain` items at a time, each
// thread with a copy of `blank` of its own. `body` must not throw.
template <class Workspace, class Body>
void parallel_for(std::int64_t total, std::int64_t grain, int threads, const Workspace &blank, const Body &body) {
    const std::int64_t parts = std::max<std::int64_t>(1, std::min<std::int64_t>(threads, total / grain));
    struct Context {
        std::vector<Workspace> workspaces;
        const Body &body;
        std::int64_t total, grain;
        std::atomic<std::int64_t> member{0}, next{0};
    } context{std::vector<Workspace>(static_cast<std::size_t>(parts), blank), body, total, grain};
    run_on_threads(
        static_cast<int>(parts),
        [](void *shared) {
            Context &context = *static_cast<Context *>(shared);
            Workspace &workspace = context.workspaces[static_cast<std::size_t>(context.member++)];
            for (std::int64_t begin; (begin = context.next.fetch_add(context.grain)) < context.total;)
                for (std::int64_t item = begin; item < std::min(begin + context.grain, context.total); ++item)
                    context.body(item, workspace);
        },
        &context);
}

// Calls body(begin, end) for consecutive parts of [0, total), `grain` items or the rest, on at most `threads` threads.
// `body` must not throw.
template <class Body>
void parallel_for(std::int64_t total, std::int64_t grain, int threads, const Body &body) {
    struct None {};
    const std::int64_t parts = (total + grain - 1) / grain;
    parallel_for(parts, 1, threads, None{},
                 [&](std::int64_t part, None &) { body(part * grain, std::min((part + 1) * grain, total)); });
}

// Calls solver.solve(sample, threads) for every sample of a batch. Samples go to different threads, each with a copy of
// `blank` of its own; where there are fewer samples than threads, all threads work on one sample after the other.
// `solve` must not throw.
template <class Solver>
void solve_samples(std::int64_t batch, int threads, const Solver &blank) {
    if (batch >= threads)
        return parallel_for(batch, 1, threads, blank,
                            [](std::int64_t sample, Solver &solver) { solver.solve(sample, 1); });
    Solver solver(blank);
    for (std::int64_t sample = 0; sample < batch; ++sample)
        solver.solve(sample, threads);
}

} // namespace latentdem
