// The kernel denoiser (DnCNN: five 3 x 3 convolutions with 32 channels between them) on a tile of 8 x 8 pixels, by one
// block. Features are in global memory, channels last; a tile is read with the pixels around it. Weights of a layer
// are in shared memory, outputs last.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "hqs_m_step.hpp"

namespace latentdem::cuda {

constexpr int kTile = 8;              // pixels a side
constexpr int kAround = kTile + 2;    // with those that one layer reads
constexpr int kFarAround = kTile + 4; // or two
constexpr int kTaps = 9;

// How many outputs of a hidden layer a thread holds, pixels of a row and channels of each, and how often.
template <int Threads>
struct Blocking {
    static constexpr int pixels = Threads == 512 ? 2 : 4;
    static constexpr int channels = Threads == 64 ? 4 : 2;
    static constexpr int across = kDenoiserChannels / channels; // threads of a pixel, which are neighbours
    static constexpr int loads = Threads == 64 ? 1 : 4;         // that a loop asks for at once
    static constexpr int places = kTile * kTile / pixels;
    static_assert(places * across % Threads == 0 && kTile % pixels == 0, "whole rows, for every thread as many");
};

// Shared memory, in numbers; each array is aligned to four of them.
struct TileMemory {
    static constexpr int pitch = kDenoiserChannels + 4; // of pixels, so that neighbours are in other banks
    static constexpr int features = 0;
    static constexpr int inputs = features + kAround * kAround * pitch; // kernel and level map
    static constexpr int first = inputs + 2 * kFarAround * kFarAround;  // weights of the first layer, its biases
    static constexpr int first_biases = first + kTaps * 2 * kDenoiserChannels;
    static constexpr int weights = first_biases + kDenoiserChannels; // of any other layer, its biases
    static constexpr int biases = weights + kTaps * kDenoiserChannels * kDenoiserChannels;
    static constexpr std::size_t bytes = (biases + kDenoiserChannels) * sizeof(float);
};

// Every thread of the block makes every call, between two of which there is a barrier.
template <int Threads>
class DenoiserTiles {
    using Held = Blocking<Threads>;
    static constexpr int kQuads = kDenoiserChannels / 4;

  public:
    __device__ DenoiserTiles(const HqsMStep &step, float *memory)
        : p(step), memory(memory), thread(static_cast<int>(threadIdx.x)) {}

    __device__ int tiles_a_side() const { return (p.size + kTile - 1) / kTile; }

    // Weights and biases of a layer; with those of the second, those of the first.
    __device__ void stage(int layer) {
        if (layer == 1) {
            copy(TileMemory::first, p.weights[0], kTaps * 2 * kDenoiserChannels);
            copy_biases(TileMemory::first_biases, p.biases[0], kDenoiserChannels);
        }
        const int outputs = layer == kDenoiserLayers - 1 ? 1 : kDenoiserChannels;
        copy(TileMemory::weights, p.weights[layer], kTaps * kDenoiserChannels * outputs);
        copy_biases(TileMemory::biases, p.biases[layer], outputs);
    }

    // The tile that begins at (top, left) of features (size x size x channels).
    __device__ void read(const float *features, int top, int left) {
#pragma unroll(Held::loads)
        for (int i = thread; i < kAround * kAround * kQuads; i += Threads) {
            const int pixel = i / kQuads, channel = i % kQuads * 4;
            const int row = top - 1 + pixel / kAround, column = left - 1 + pixel % kAround;
            quad(TileMemory::features + pixel * TileMemory::pitch + channel) =
                inside(row, column) ? *reinterpret_cast<const float4 *>(features + number(row, column) + channel)
                                    : float4{0.0f, 0.0f, 0.0f, 0.0f};
        }
    }

    // The same tile of what the first layer makes of a kernel at peak one and the map of its noise level. It has a
    // barrier of its own.
    __device__ void read_inputs(const float *kernel, float divisor, float level, int top, int left) {
        float *const scaled = memory + TileMemory::inputs, *const map = scaled + kFarAround * kFarAround;
        for (int i = thread; i < kFarAround * kFarAround; i += Threads) {
            const int row = top - 2 + i / kFarAround, column = left - 2 + i % kFarAround;
            scaled[i] = inside(row, column) ? kernel[row * p.size + column] / divisor : 0.0f;
            map[i] = inside(row, column) ? level : 0.0f;
        }
        __syncthreads();
#pragma unroll 1
        for (int i = thread; i < kAround * kAround * kQuads; i += Threads) {
            const int pixel = i / kQuads, channel = i % kQuads * 4, row = pixel / kAround, column = pixel % kAround;
            float4 sum = quad(TileMemory::first_biases + channel);
#pragma unroll
            for (int tap = 0; tap < kTaps; ++tap) {
                const int place = (row + tap / 3) * kFarAround + column + tap % 3;
                const int weights = TileMemory::first + tap * 2 * kDenoiserChannels + channel;
                add(sum, scaled[place], quad(weights));
                add(sum, map[place], quad(weights + kDenoiserChannels));
            }
            const bool exists = inside(top - 1 + row, left - 1 + column);
            quad(TileMemory::features + pixel * TileMemory::pitch + channel) =
                exists ? float4{rectified(sum.x), rectified(sum.y), rectified(sum.z), rectified(sum.w)}
                       : float4{0.0f, 0.0f, 0.0f, 0.0f};
        }
    }

    // A layer from channels to as many, and ReLU, into features.
    __device__ void convolve(float *features, int top, int left) const {
        const int first = thread % Held::across * Held::channels;
#pragma unroll 1
        for (int place = thread / Held::across; place < Held::places; place += Threads / Held::across) {
            const int row = place / (kTile / Held::pixels), column = place % (kTile / Held::pixels) * Held::pixels;
            float sum[Held::pixels][Held::channels];
            sum_up(row, column, first, sum);
#pragma unroll
            for (int n = 0; n < Held::pixels; ++n)
                if (inside(top + row, left + column + n)) {
                    float *const pixel = features + number(top + row, left + column + n) + first;
#pragma unroll
                    for (int c = 0; c < Held::channels; c += 2)
                        *reinterpret_cast<float2 *>(pixel + c) = {rectified(sum[n][c]), rectified(sum[n][c + 1])};
                }
        }
    }

    // function(row, column, value) for the results of the last layer, which has one output, by some of the threads.
    template <class Function>
    __device__ void last(int top, int left, Function function) const {
        constexpr int parts = Threads / (kTile * kTile), channels = kDenoiserChannels / parts;
        const int part = thread % parts, row = thread / parts / kTile, column = thread / parts % kTile;
        float sum = 0.0f;
#pragma unroll 1
        for (int tap = 0; tap < kTaps; ++tap)
#pragma unroll(Held::loads)
            for (int c = 0; c < channels; c += 4) {
                const int channel = part * channels + c;
                const float4 x = quad(feature(row + tap / 3, column + tap % 3) + channel);
                const float4 w = quad(TileMemory::weights + tap * kDenoiserChannels + channel);
                sum += x.x * w.x + x.y * w.y + x.z * w.z + x.w * w.w;
            }
#pragma unroll
        for (int offset = parts / 2; offset > 0; offset /= 2)
            sum += __shfl_down_sync(0xffffffffu, sum, offset);
        if (part == 0 && inside(top + row, left + column))
            function(top + row, left + column, sum + memory[TileMemory::biases]);
    }

  private:
    const HqsMStep &p;
    float *const memory;
    const int thread;

    __device__ bool inside(int row, int column) const {
        return row >= 0 && row < p.size && column >= 0 && column < p.size;
    }
    __device__ std::int64_t number(int row, int column) const {
        return static_cast<std::int64_t>(row * p.size + column) * kDenoiserChannels;
    }
    __device__ static int feature(int row, int column) {
        return TileMemory::features + (row * kAround + column) * TileMemory::pitch;
    }
    __device__ float4 &quad(int place) const { return *reinterpret_cast<float4 *>(memory + place); }
    __device__ float2 &pair(int place) const { return *reinterpret_cast<float2 *>(memory + place); }

    // The sums of a hidden layer for some pixels of a row and some outputs of each.
    __device__ void sum_up(int row, int column, int first, float (&sum)[Held::pixels][Held::channels]) const {
#pragma unroll
        for (int n = 0; n < Held::pixels; ++n)
#pragma unroll
            for (int c = 0; c < Held::channels; ++c)
                sum[n][c] = memory[TileMemory::biases + first + c];
#pragma unroll 1
        for (int channel = 0; channel < kDenoiserChannels; channel += 4)
#pragma unroll
            for (int i = 0; i < 3; ++i) {
                float x[Held::pixels + 2][4];
#pragma unroll
                for (int n = 0; n < Held::pixels + 2; ++n)
                    unpack(quad(feature(row + i, column + n) + channel), x[n]);
#pragma unroll
                for (int j = 0; j < 3; ++j)
#pragma unroll
                    for (int k = 0; k < 4; ++k) {
                        const int taps = ((3 * i + j) * kDenoiserChannels + channel + k) * kDenoiserChannels;
#pragma unroll
                        for (int c = 0; c < Held::channels; c += 2) {
                            const float2 w = pair(TileMemory::weights + taps + first + c);
#pragma unroll
                            for (int n = 0; n < Held::pixels; ++n) {
                                sum[n][c] += x[n + j][k] * w.x;
                                sum[n][c + 1] += x[n + j][k] * w.y;
                            }
                        }
                    }
            }
    }

    // `count` is a multiple of four.
    __device__ void copy(int place, const float *from, int count) const {
#pragma unroll(Held::loads)
        for (int i = 4 * thread; i < count; i += 4 * Threads)
            quad(place + i) = *reinterpret_cast<const float4 *>(from + i);
    }
    __device__ void copy_biases(int place, const float *from, int count) const {
        if (thread < count)
            memory[place + thread] = from[thread];
    }

    __device__ static float rectified(float value) { return value < 0.0f ? 0.0f : value; }
    __device__ static void unpack(float4 four, float (&values)[4]) {
        values[0] = four.x, values[1] = four.y, values[2] = four.z, values[3] = four.w;
    }
    __device__ static void add(float4 &sum, float factor, float4 w) {
        sum.x += factor * w.x, sum.y += factor * w.y, sum.z += factor * w.z, sum.w += factor * w.w;
    }
};

} // namespace latentdem::cuda
