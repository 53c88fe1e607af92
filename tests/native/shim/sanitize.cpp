// Every kernel on arrays of exactly its size, in several orders of the threads: to be compiled with sanitizers.
// Ends with 0 where every launch succeeds, every output is written and every order gives the same bits.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "blur_residual.hpp"
#include "hqs_finish.hpp"
#include "hqs_kernel_update.hpp"
#include "hqs_prepare.hpp"

using namespace latentdem::cuda;
using Floats = std::vector<float>;

extern "C" void latentdem_shim_order(unsigned order);

namespace {

int failures = 0;

Floats random_floats(std::size_t size) {
    static std::mt19937 generator;
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    Floats found(size);
    for (float &value : found)
        value = uniform(generator);
    return found;
}

Floats unwritten(std::size_t size) { return Floats(size, NAN); }

float2 *complex(Floats &floats) { return reinterpret_cast<float2 *>(floats.data()); }

template <class Params>
void expect_success(const std::string &name, const Params &params) {
    const cudaError_t error = launch(params, nullptr);
    if (error != cudaSuccess) {
        std::printf("%s: %s\n", name.c_str(), cudaGetErrorString(error));
        ++failures;
    }
}

// `run` gives the output of one launch.
void try_orders(const std::string &name, const std::function<Floats()> &run) {
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
            std::printf("%s: wrong in order %u\n", name.c_str(), order);
            ++failures;
        }
    }
}

void kernel_update(int side, int size, bool project) {
    const std::size_t batch = 2, count = batch * size * size;
    const Floats kernel = random_floats(count), data_term = random_floats(count);
    const Floats filter = random_floats(batch * side * (side / 2 + 1));
    const std::string name = "hqs_kernel_update side " + std::to_string(side) + " size " + std::to_string(size);
    try_orders(name, [&] {
        Floats updated = unwritten(count);
        expect_success(name, HqsKernelUpdate{kernel.data(), data_term.data(), filter.data(), updated.data(), batch,
                                             size, side, project});
        return updated;
    });
}

void finish(int side, int size, bool with_data) {
    const std::size_t batch = 2, count = batch * size * size;
    const Floats response = random_floats(batch * side * side), data_term = random_floats(count);
    try_orders("hqs_finish", [&] {
        Floats updated = unwritten(count);
        expect_success("hqs_finish", HqsFinish{response.data(), with_data ? data_term.data() : nullptr, updated.data(),
                                               batch, size, side, true});
        return updated;
    });
}

void prepare(int height, int width, int size, int side, bool per_channel) {
    const std::int64_t batch = 2, samples = 2, channels = 3, points = height * (width / 2 + 1);
    Floats x_hat = random_floats(2 * batch * samples * channels * points);
    Floats y_hat = random_floats(2 * batch * channels * points);
    const Floats weight{0.5f, 3.0f}, images = random_floats(2 * batch * height * width);
    try_orders("hqs_solve", [&] {
        Floats spectra = unwritten(2 * batch * 2 * points);
        expect_success("hqs_solve", HqsSolve{complex(x_hat), complex(y_hat), weight.data(), complex(spectra), batch,
                                             samples, channels, points, 2, per_channel});
        return spectra;
    });
    try_orders("hqs_crop", [&] {
        Floats data_term = unwritten(batch * size * size);
        Floats padded = unwritten(batch * side * side);
        expect_success("hqs_crop", HqsCrop{images.data(), images.data() + batch * height * width, data_term.data(),
                                           padded.data(), batch, height, width, size, side, 2});
        data_term.insert(data_term.end(), padded.begin(), padded.end());
        return data_term;
    });
}

void blur(int height, int width, bool proximal) {
    const std::int64_t batch = 2, channels = 3, points = height * (width / 2 + 1);
    const int parts = 2;
    const Floats x_hat = random_floats(2 * batch * channels * points);
    Floats y_hat = random_floats(2 * batch * channels * points), otf = random_floats(2 * batch * points);
    const Floats rho{0.1f, 2.0f}, x = random_floats(height * width);
    try_orders("blur_residual", [&] {
        Floats spectrum = x_hat, norm2 = unwritten(proximal ? 0 : batch * parts);
        expect_success("blur_residual",
                       BlurResidual{complex(spectrum), complex(y_hat), complex(otf), proximal ? rho.data() : nullptr,
                                    proximal ? nullptr : norm2.data(), batch, channels, height, width, parts});
        spectrum.insert(spectrum.end(), norm2.begin(), norm2.end());
        return spectrum;
    });
    try_orders("blur_glue", [&] {
        Floats correction = x, glued = unwritten(x.size());
        expect_success("blur_glue",
                       BlurGlue{correction.data(), x.data(), glued.data(), static_cast<std::int64_t>(x.size())});
        correction.insert(correction.end(), glued.begin(), glued.end());
        return correction;
    });
}

} // namespace

int main(int argc, char **) {
    if (argc > 1) { // a fault that AddressSanitizer must find: an output that is one number short
        const Floats response = random_floats(16);
        Floats updated = unwritten(15);
        expect_success("hqs_finish", HqsFinish{response.data(), nullptr, updated.data(), 1, 4, 4, true});
        return 0;
    }
    for (const int size : {1, 3, 15, 16})
        kernel_update(32, size, size != 3);
    for (const int size : {17, 32})
        kernel_update(64, size, true);
    kernel_update(128, 63, true);
    finish(72, 33, true);
    finish(7, 7, false);
    prepare(16, 17, 9, 18, false);
    prepare(21, 16, 16, 32, true);
    for (const bool proximal : {false, true}) {
        blur(16, 33, proximal);
        blur(31, 20, proximal);
    }
    std::printf("%d failures\n", failures);
    return failures != 0;
}
