// The gated layers of nn/wn.py in training: what they compute and its gradient, in bfloat16 with
// float32 sums. nn/gated_training.py is the face: it adds up the skips and knows torch.
//
// For layer l with dilation d, row by row; products read bfloat16 and add float32:
//
//     a     = W_gate [x(t - (K-1) d), ..., x(t)] + b + condition(t)
//     f, g  = tanh(a_f), sigmoid(a_g)                      kept
//     z     = f g                                          kept
//     x'    = x + W_res z + b_res                          kept
//
// and backwards, given the gradient dz' that reaches z through the skips, and dx' of x':
//
//     dz    = dz' + dx' W_res
//     da_f  = dz g (1 - f^2),   da_g = dz f g (1 - g)
//     dx    = dx' + sum over taps k of da(t + (K-1-k) d) W_gate[k]
//     dW_gate[k] = sum over t of da(t) x(t - (K-1-k) d),   dW_res = sum of dx'(t) z(t)
//
// A tile of rows goes through all of that while it lies in the first cache, so that memory sees x, f,
// g, z, dz', da and dx once or twice a layer. Gates lie in blocks of sixteen channels: of a_f, then of
// a_g, as one register tile makes them.
//
// A segment is a whole number of frames. Each has sums of its own, added up in one order whatever the
// threads, so that gradients have the same bits on any number of them.
//
// No `#include` of the standard library's C++ headers: see network.hpp.

#pragma once

#include <cstdint>

namespace wavewn {

using Brain16 = std::uint16_t;  // the bits of a bfloat16

constexpr std::int64_t MOST_GATED_CHANNELS = 256;  // tiles of so many lie on the stack

struct GatedSizes {
    std::int64_t batch, time, channels;  // channels: a multiple of 16
    std::int64_t taps, layers;
    std::int64_t hop;                    // rows of a frame of the condition
    std::int64_t padding;                // rows of zeros before x and after da: at least any context
    std::int64_t segment;                // rows
    bool linear;                         // the condition goes from the frame before to its own

    std::int64_t segments() const { return (time + segment - 1) / segment; }
    std::int64_t jobs() const { return batch * segments(); }
    std::int64_t frames() const { return time / hop; }
    // Sums of one segment: W_gate [2 R, K R], W_res [R, R], b_res [R].
    std::int64_t gate_sums() const { return 2 * channels * taps * channels; }
    std::int64_t sums() const { return gate_sums() + channels * channels + channels; }
};

// One layer. Weights are packed: see `pack`.
struct GatedLayer {
    std::int64_t index, dilation;
    bool last;                    // without W_res
    const Brain16* condition;     // [batch, frames (+ 1 before them if linear), layers, 2 R]
    const Brain16* x;             // [batch, padding + time, R]
    Brain16* factors;             // [batch, time, 2 R]

    // Forwards.
    const Brain16* gate;          // [K R, 2 R]
    const float* gate_bias;       // [2 R]
    const Brain16* residual;      // [R, R], rows are of z
    const float* residual_bias;   // [R]
    Brain16* z;                   // [batch, time, layers, R]
    Brain16* next;                // as x

    // Backwards.
    const Brain16* gate_back;     // [K 2 R, R]
    const Brain16* residual_back; // [R, R], rows are of x'
    const Brain16* dz;            // as z
    Brain16* da;                  // [batch, time + padding, 2 R]
    Brain16* dx;                  // [batch, time, R], in place; not read in the last layer
    float* dnow;                  // [batch, frames, layers, 2 R]: of a frame's own condition, added to
    float* dbefore;               // likewise, of the frame before, if linear
    float* sums;                  // [jobs, sums()]
};

struct GatedKernels {
    // Rows of a matrix [rows, columns] in pairs, for columns of 32 and a last of 16; `rows` is even
    // for whoever multiplies: an odd one is followed by zeros.
    void (*pack)(const Brain16* from, std::int64_t rows, std::int64_t columns, Brain16* to);
    void (*forward)(const GatedSizes&, const GatedLayer&, std::int64_t job);
    // First all jobs of the one, then all of the other.
    void (*backward_gates)(const GatedSizes&, const GatedLayer&, std::int64_t job);
    void (*backward_inputs)(const GatedSizes&, const GatedLayer&, std::int64_t job);
    // sums [jobs, count] to their total.
    void (*total)(const float* sums, std::int64_t jobs, std::int64_t count, float* to);
};

// Null where a set was not compiled in.
namespace avx512_bf16 { extern const GatedKernels gated_training __attribute__((weak)); }

}  // namespace wavewn
