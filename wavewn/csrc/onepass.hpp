// One-pass models natively: convolutions over rows, chunk by chunk, without a call between them.
//
// The idea. A generator's chunk is a list of steps whose sizes are all known before it runs: which
// rows each layer hears again, which it makes, what it keeps. Python makes that list once for each
// size of chunk (engine/onepass_program.py); the kernel runs it over one stream after the other. So
// a chunk of a few frames costs no more than its multiplications and a copy of the state.
//
// Rows lie one after another, channels innermost, in buffers of one arena: as float32, or as what
// the convolutions read ("operands": float32, or bfloat16). A buffer begins with the rows that its
// readers hear again, taken from the state, and with their padding; the new rows follow. So no
// window is ever copied together.
//
// A convolution is a product for each tap: sixteen or thirty-two outputs of up to eight rows stay in
// registers while one weight vector after the other meets one input of each row. Its sums have the
// same order whatever the chunk: audio does not depend on how it was cut. A transposed convolution
// is one of `rate` times as many outputs, whose rows are then those of `rate` rows. So is one of few
// outputs: as many rows as fill a vector are made at once, from all rows that they see together.
//
// A precise convolution (nn/padded.py) reads floats and sums in doubles, in every precision; so does
// one of an odd number of inputs in bfloat16, which takes them in pairs.
//
//     onepass_kernel.hpp   the steps, compiled once for each instruction set (onepass_SET.cpp)
//     onepass_tiles.hpp    convolutions where the set has AMX
//     onepass_precise.hpp  precise convolutions and smoothings
//     onepass.cpp          packs weights, and checks a list of steps before it ever runs
//     spectral_chunk.hpp   the spectral model: its convolutions, its spectra, one call
//
// 2026-11-22, one thread of a Zen 4: the products alone run at 115e9 multiplications a second in
// bfloat16 and at 57e9 in float32, nearly all that its units can do, from 32 channels on; precise
// ones at 23e9.
//
// No `#include` of the standard library's C++ headers: see network.hpp. Twin: nn/padded.py.

#pragma once

#include <cstdint>

namespace wavewn {

constexpr int STEP_NUMBERS = 8;

enum class StepKind : std::int64_t { load, save, pad, map, conv, add, gate, repeat, blend };
enum class Map : std::int64_t { copy, leaky, divide, tanh, scale };
enum class PadMode : std::int64_t { zeros, reflect, replicate };

// Where a map reads and writes.
// outside: the mel to read or the audio to write; drive: the noise to read.
enum class Place : std::int64_t { floats, operands, outside, drive };

// How a layer meets its rows. precise: floats, sums in doubles, weights of floats in panels of one
// vector. smoothing: floats, one filter [taps] for every channel.
enum class LayerKind : std::int64_t { product, precise, smoothing };

// A layer, packed: panels of as many vectors of sixteen outputs as the kernel says (one in the last
// where that is enough), each [taps][inputs / group][vectors][16][group]; group is 2 in bfloat16,
// else 1.
struct OnePassLayer {
    std::int64_t inputs, outputs, taps, dilation;
    std::int64_t stride;  // input rows from one row of outputs to the next
    const void* weights;
    const float* bias;  // [outputs, padded to vectors]
    LayerKind kind;
};

// What a step means, by its kind. Offsets in the arena are in bytes, in the state in floats; counts
// are numbers, not bytes.
struct LoadStep {  // from the state into a buffer
    std::int64_t kind, is_operand, buffer, state, count;
};
struct SaveStep {  // back
    std::int64_t kind, is_operand, buffer, state, count;
};
struct PadStep {  // rows before and after those that are there
    std::int64_t kind, is_operand, buffer, channels, left, rows, right;
    PadMode mode;
};
struct MapStep {  // to = map(from); outside is the mel to read, and the audio to write
    std::int64_t kind, from_place, from, to_place, to, count;
    Map map;
    float number, unused;
};
struct ConvStep {  // to = layer(operands) [+ added], rows of floats; heard = leaky(to), operands
    std::int64_t kind, layer, from, to, added, rows, heard;  // buffers, or -1 where there is none
    float slope, unused;
};
struct AddStep {  // to = a + b
    std::int64_t kind, a, b, to, count;
};
struct GateStep {  // to = tanh(first half of a row's channels) * sigmoid(second half)
    std::int64_t kind, from, to_place, to, rows, channels;  // channels: of a row of `to`
};
struct RepeatStep {  // each row so many times
    std::int64_t kind, from, to_place, to, rows, channels, factor;
};
struct BlendStep {  // to = leaky((a + b [+ c]) / divisor), operands
    std::int64_t kind, a, b, c, to, count;  // c may be -1
    float divisor, slope;
};

union Step {
    std::int64_t numbers[STEP_NUMBERS];
    StepKind kind;
    LoadStep load;
    SaveStep save;
    PadStep pad;
    MapStep map;
    ConvStep conv;
    AddStep add;
    GateStep gate;
    RepeatStep repeat;
    BlendStep blend;
};
static_assert(sizeof(Step) == sizeof(std::int64_t) * STEP_NUMBERS, "steps are rows of numbers");

// Lets threads share work: job(argument, 0 .. jobs - 1), and returns when all are done.
struct Sharing {
    int threads;
    void (*share)(void* context, int jobs, void (*job)(void*, int), void* argument);
    void* context;
};

// What one stream's run reads and writes.
struct OnePassRun {
    const Step* steps;
    std::int64_t count;
    const OnePassLayer* layers;
    char* arena;
    float* state;
    const float* mel;
    const float* drive;  // or null
    float* audio;
    const Sharing* sharing;
};

using OnePassKernel = void (*)(const OnePassRun&);

// What a set has: for operands in float32 and in bfloat16, or null; and how wide a panel is.
struct OnePassKernels {
    OnePassKernel float32, bfloat16;
    int panel;
};

// Null where a set was not compiled in.
namespace portable { extern const OnePassKernels onepass __attribute__((weak)); }
namespace avx2 { extern const OnePassKernels onepass __attribute__((weak)); }
namespace avx512 { extern const OnePassKernels onepass __attribute__((weak)); }
namespace avx512_bf16 { extern const OnePassKernels onepass __attribute__((weak)); }
namespace amx_bf16 { extern const OnePassKernels onepass __attribute__((weak)); }

}  // namespace wavewn
