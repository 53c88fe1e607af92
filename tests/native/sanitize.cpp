// Every kernel on arrays of exactly its size, several times: on a GPU for the tools of compute-sanitizer (nvcc; no
// PyTorch is needed), and on the CPU for the sanitizers of a C++ compiler (with shim/), in several orders of the
// threads. Ends with 0 where every launch succeeds, every output is written and every run gives the same bits.
//
//     sanitize               fills outputs with NaN before a launch and looks for it afterwards
//     sanitize --unfilled    leaves them as allocated, so that initcheck sees what is not written
//     sanitize --fault       an output that is one number short, which every memory checker must report
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include <cuda_runtime.h>

#include "blur_columns.hpp"
#include "blur_residual.hpp"
#include "hqs_finish.hpp"
#include "hqs_kernel_update.hpp"
#include "hqs_lags.hpp"
#include "hqs_m_step.hpp"
#include "hqs_prepare.hpp"
#include "masked_kernel.hpp"
#include "masked_proximal.hpp"
#include "repeated.hpp"

using namespace latentdem::cuda;

namespace {

void kernel_update(int side, int size, bool project) {
    const std::size_t batch = 2, count = batch * size * size;
    Array kernel(random_floats(count)), data_term(random_floats(count));
    Array filter(random_floats(batch * side * (side / 2 + 1)));
    const std::string name = "hqs_kernel_update side " + std::to_string(side) + " size " + std::to_string(size);
    repeat(name, [&] {
        Output updated(count);
        expect_success(name, launch(HqsKernelUpdate{kernel.get(), data_term.get(), filter.get(), updated.get(), batch,
                                                    size, side, project, 2},
                                    nullptr));
        Floats found;
        updated.append_to(found);
        return found;
    });
}

void m_step(int side, int size, bool relative) {
    const std::int64_t batch = 2;
    const std::size_t count = batch * size * size;
    Array kernel(random_floats(count)), data_term(random_floats(count)), level(Floats{0.1f, 0.2f});
    Array filter(random_floats(batch * side * (side / 2 + 1)));
    std::vector<std::unique_ptr<Array>> layers;
    HqsMStep problem{kernel.get(), data_term.get(), filter.get(), level.get(), {},       {}, nullptr,
                     nullptr,      batch,           size,         side,        relative, 2};
    for (int layer = 0; layer < kDenoiserLayers; ++layer) {
        const std::size_t inputs = layer == 0 ? 2 : kDenoiserChannels;
        const std::size_t outputs = layer == kDenoiserLayers - 1 ? 1 : kDenoiserChannels;
        layers.push_back(std::make_unique<Array>(random_floats(9 * inputs * outputs)));
        problem.weights[layer] = layers.back()->get();
        layers.push_back(std::make_unique<Array>(random_floats(outputs)));
        problem.biases[layer] = layers.back()->get();
    }
    repeat("hqs_m_step", [&] {
        Output updated(count);
        problem.updated = updated.get();
        Array workspace(workspace_bytes(problem) / sizeof(float));
        problem.workspace = workspace.get();
        expect_success("hqs_m_step", launch(problem, nullptr));
        Floats found;
        updated.append_to(found);
        return found;
    });
}

void finish(int side, int size, bool with_data) {
    const std::size_t batch = 2, count = batch * size * size;
    Array response(random_floats(batch * side * side)), data_term(random_floats(count));
    repeat("hqs_finish", [&] {
        Output updated(count);
        expect_success("hqs_finish", launch(HqsFinish{response.get(), with_data ? data_term.get() : nullptr,
                                                      updated.get(), batch, size, side, true},
                                            nullptr));
        Floats found;
        updated.append_to(found);
        return found;
    });
}

void prepare(int height, int width, int size, int side, bool per_channel) {
    const std::int64_t batch = 2, samples = 2, channels = 3, points = height * (width / 2 + 1);
    Array x_hat(random_floats(2 * batch * samples * channels * points));
    Array y_hat(random_floats(2 * batch * channels * points));
    Array weight(Floats{0.5f, 3.0f}), solution(random_floats(batch * height * width));
    Array response(random_floats(batch * height * width));
    repeat("hqs_solve", [&] {
        Output spectra(2 * batch * 2 * points);
        expect_success("hqs_solve", launch(HqsSolve{x_hat.complex(), y_hat.complex(), weight.get(), spectra.complex(),
                                                    batch, samples, channels, points, 2, per_channel},
                                           nullptr));
        Floats found;
        spectra.append_to(found);
        return found;
    });
    repeat("hqs_crop", [&] {
        Output data_term(batch * size * size), padded(batch * side * side);
        expect_success("hqs_crop", launch(HqsCrop{solution.get(), response.get(), data_term.get(), padded.get(), batch,
                                                  height, width, size, side, 2},
                                          nullptr));
        Floats found;
        data_term.append_to(found);
        padded.append_to(found);
        return found;
    });
}

void blur(int height, int width, bool proximal) {
    const std::int64_t batch = 2, channels = 3, points = height * (width / 2 + 1);
    const int parts = 2;
    const Floats x_hat = random_floats(2 * batch * channels * points), x = random_floats(height * width);
    Array y_hat(random_floats(2 * batch * channels * points)), otf(random_floats(2 * batch * points));
    Array rho(Floats{0.1f, 2.0f});
    repeat("blur_residual", [&] {
        Array spectrum(x_hat);
        Output norm2(batch * parts);
        expect_success(
            "blur_residual",
            launch(BlurResidual{spectrum.complex(), y_hat.complex(), otf.complex(), proximal ? rho.get() : nullptr,
                                proximal ? nullptr : norm2.get(), batch, channels, height, width, parts},
                   nullptr));
        Floats found;
        spectrum.append_to(found);
        if (!proximal)
            norm2.append_to(found);
        return found;
    });
    repeat("blur_glue", [&] {
        Array correction(x), image(x);
        Output glued(x.size());
        expect_success(
            "blur_glue",
            launch(BlurGlue{correction.get(), image.get(), glued.get(), static_cast<std::int64_t>(x.size())}, nullptr));
        Floats found;
        correction.append_to(found);
        glued.append_to(found);
        return found;
    });
}

void lags(int height, int width, int size, bool per_channel) {
    const std::int64_t batch = 2, samples = 2, channels = 2, columns = width / 2 + 1, points = height * columns;
    Array rows(random_floats(2 * batch * samples * channels * points));
    Array y_hat(random_floats(2 * batch * channels * points)), weight(Floats{0.5f, 3.0f});
    repeat("hqs_lags", [&] {
        Output found_lags(2 * 2 * batch * (2 * size - 1) * columns);
        expect_success("hqs_lags", launch(HqsLags{rows.complex(), y_hat.complex(), weight.get(), found_lags.complex(),
                                                  batch, samples, channels, height, width, size, per_channel},
                                          nullptr));
        Floats found;
        found_lags.append_to(found);
        return found;
    });
}

void blur_columns(int height, int width, int size, bool proximal) {
    const std::int64_t batch = 2, channels = 2, columns = width / 2 + 1, points = height * columns;
    const int parts = static_cast<int>(columns + 3) / 4;
    const Floats transformed = random_floats(2 * batch * channels * points);
    Array kernel(random_floats(batch * size * size)), y_hat(random_floats(2 * batch * channels * points));
    Array rho(Floats{0.1f, 2.0f});
    repeat("blur_columns", [&] {
        Array rows(transformed);
        Output norm2(batch * channels * parts);
        expect_success(
            "blur_columns",
            launch(BlurColumns{rows.complex(), kernel.get(), y_hat.complex(), proximal ? rho.get() : nullptr,
                               proximal ? nullptr : norm2.get(), batch, channels, height, width, size, parts},
                   nullptr));
        Floats found;
        rows.append_to(found);
        if (!proximal)
            norm2.append_to(found);
        return found;
    });
}

// A frame of some rows and columns, and a hole.
Floats mask_of(int height, int width, int rows, int columns) {
    Floats mask(static_cast<std::size_t>(height * width));
    for (int row = 1; row < height - rows; ++row)
        for (int column = columns; column < width; ++column)
            mask[static_cast<std::size_t>(row * width + column)] = row != 4 || column != width - 3;
    return mask;
}

void masked_proximal(std::int64_t batch, int height, int width, int rows, int columns, bool filled) {
    const std::int64_t channels = 1, points = batch * channels * height * width;
    const int size = 3, iterations = 1;
    Array x0(random_floats(points)), y(random_floats(points)), fill_of(random_floats(points));
    Array mask(mask_of(height, width, rows, columns)), kernel(random_floats(batch * size * size));
    Array rho(Floats{0.1f, 2.0f});
    repeat("masked_proximal", [&] {
        Output x(points), found_fill(points);
        MaskedProximal problem{x0.get(),
                               y.get(),
                               filled ? fill_of.get() : nullptr,
                               mask.get(),
                               kernel.get(),
                               rho.get(),
                               x.get(),
                               found_fill.get(),
                               nullptr,
                               batch,
                               1,
                               channels,
                               height,
                               width,
                               size,
                               iterations,
                               1e-3,
                               2.5,
                               6.0,
                               1e-6,
                               1e-6};
        Array workspace(workspace_bytes(problem) / sizeof(float));
        problem.workspace = workspace.get();
        expect_success("masked_proximal", launch(problem, nullptr));
        Floats found;
        x.append_to(found);
        found_fill.append_to(found);
        return found;
    });
}

void masked_kernel(int height, int width, int size, bool factored) {
    const std::int64_t batch = 2, images = 2, count = size * size;
    Array x(random_floats(batch * images * height * width)), right(random_floats(batch * count));
    Array mask(mask_of(height, width, 2, 3)), weight(Floats{10.0f, 20.0f});
    Floats lower = random_floats(batch * count * count);
    for (std::int64_t i = 0; i < batch * count; ++i) // away from zero
        lower[static_cast<std::size_t>(i * count + i % count)] = 30.0f;
    Array factor(lower);
    repeat("masked_kernel_solve", [&] {
        Output solution(batch * count), residual(batch * count);
        MaskedKernel problem{x.get(),
                             mask.get(),
                             weight.get(),
                             right.get(),
                             factored ? factor.get() : nullptr,
                             solution.get(),
                             residual.get(),
                             nullptr,
                             batch,
                             1,
                             images,
                             height,
                             width,
                             size,
                             1,
                             1e-6};
        Array workspace(workspace_bytes(problem) / sizeof(float));
        problem.workspace = workspace.get();
        expect_success("masked_kernel_solve", launch(problem, nullptr));
        Floats found;
        solution.append_to(found);
        residual.append_to(found);
        return found;
    });
}

} // namespace

int main(int argc, char **argv) {
    const std::string option = argc > 1 ? argv[1] : "";
    fill = option != "--unfilled";
    if (option == "--fault") {
        Array response(random_floats(16));
        Output updated(15);
        expect_success("hqs_finish", launch(HqsFinish{response.get(), nullptr, updated.get(), 1, 4, 4, true}, nullptr));
        expect_success("hqs_finish", cudaDeviceSynchronize());
        return 0;
    }
    for (const int size : {1, 3, 15, 16})
        kernel_update(32, size, size != 3);
    for (const int size : {17, 32})
        kernel_update(64, size, true);
    kernel_update(128, 63, true);
    m_step(32, 9, true); // four tiles
    m_step(64, 8, false);
    m_step(128, 7, true);
    finish(72, 33, true);
    finish(7, 7, false);
    prepare(16, 17, 9, 18, false);
    prepare(21, 16, 16, 32, true);
    for (const bool proximal : {false, true}) {
        blur(16, 33, proximal);
        blur(31, 20, proximal);
        lags(64, 18, 9, proximal);
        lags(128, 70, 64, proximal);
        blur_columns(64, 65, 64, proximal);
        blur_columns(128, 30, 5, proximal);
        blur_columns(1024, 5, 4, proximal);
    }
    masked_proximal(2, 12, 9, 2, 1, true);
    masked_proximal(1, 102, 4, 99, 1, false); // more rows in the frame than have blocks
    masked_kernel(8, 10, 4, false);
    masked_kernel(9, 8, 6, true); // two panels of the factor
    std::printf("%d failures\n", failures);
    return failures != 0;
}
