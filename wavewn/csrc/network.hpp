// The native engine: a whole WaveNet, sample by sample, in one call. Start here.
//
// The idea. A sample costs one pass over all weights, and nothing else is big. So the weights lie
// in one arena in the order in which they are used, in the precision of the bundle's choice, and
// the kernel streams through them with sixteen outputs to a vector and one input broadcast after
// the other: no horizontal sums, no cache line read twice, no call out of the loop. Streams that
// run together ("lanes") share that pass. A stream that runs alone shares with its own future: what a
// gate's older taps add to the next samples is known, and made for several of them at once.
//
// The files, in the order of reading:
//
//     network.hpp    what a packed network is, and what one stream's desk holds (this file)
//     vectors.hpp    sixteen floats, on every machine the same sixteen; 2^x; rounding
//     precisions.hpp how weights and inputs meet in float32, float16 and int8
//     tiles.hpp      int8 of many lanes in the tiles of AMX
//     products.hpp   y = x @ matrix + bias for each of them: the hot loop
//     gates.hpp      int8: gates in whole numbers
//     heads.hpp      from the head's parameters and noise to a level
//     prediction.hpp linear and long-term prediction from the mel
//     frames.hpp     what happens once a frame
//     kernel.hpp     samples and layers: the network itself
//     kernel_*.cpp   kernel.hpp compiled once for each instruction set
//     packing.cpp    from plain matrices to the arena
//     assembly.cpp   which matrices there are, and their order
//     engine.cpp     a call: lanes for the rows of a batch
//     workers.cpp    threads
//     bindings.cpp   the only file that knows Python
//
// Who may do what. kernel.hpp and what it includes are compiled several times with different
// instruction sets. An inline function of the standard library would be compiled with them, and the
// linker would keep one copy, maybe that of the newest set, for everybody: so these files use none,
// and everything in them lies in a namespace of its set. The other files may use it
// all. The kernel allocates nothing, takes no lock, throws nothing and calls nothing but libm.
//
// Memory of a stream. The caller's state row (state.py; offsets from `Offsets`) is copied to the
// lane, advanced there, and copied back by the caller when every lane of the call is whole; so a
// call that fails leaves the states as they were.
//
// Twins: engine/weights.py for the arena's content, engine/workspace.py for a frame,
// engine/reference.py for a call. Test: tests/engine/test_contract.py.

#pragma once

#include <cstdint>

namespace wavewn {

constexpr int BLOCK_VECTORS = 8;  // outputs that a pass over the inputs makes at most, in vectors
constexpr int FRAMES = 4;         // mel frames that are heard at once
constexpr int SAMPLES = 8;        // samples whose conditions, or sums of older taps, are made at once
constexpr float GATE_UNIT = 2048;  // int8: gates and their conditions come so many times as large

enum class Precision : int { float32, float16, int8 };
enum class HeadKind : int { mu_law, mixture, gaussian };
enum class Upsampling : int { nearest, linear, transposed };

constexpr int padded(int count, int multiple) {
    return (count + multiple - 1) / multiple * multiple;
}

// y = x @ matrix + bias, packed.
//
// The outputs are padded with zero weights to whole vectors and cut into blocks of at most eight
// vectors. A block holds its weights input after input: [inputs][vectors][16], in int8
// [inputs / 4][vectors][16][4].
//
// int8: y = float(sum of q * w) * scale + bias, where q = round(gain * input): -127 to 127 if inputs
// are signed, else 0 to 255.
struct Product {
    int inputs;   // as the operand has them: in int8 a multiple of four
    int vectors;  // padded outputs / 16
    const void* weights;
    const float* bias;          // [vectors * 16]
    const float* scale;         // [vectors * 16], int8 only
    const std::int32_t* shift;  // [vectors * 16], int8 only: where the sums start
    const float* gain;          // [padded inputs], int8 only; repeats for every tap
    bool is_fine;               // int8 only: see Fine in products.hpp
};

struct Layer {
    int dilation;
    std::int64_t ring;  // offset in a state row, in floats
    int rows;           // of the ring: (kernel_size - 1) * dilation
    int at_once;        // samples whose older taps are added at once: 1, 2, 4 or SAMPLES
    Product gate;       // inputs: the taps, oldest first; outputs: 16 of tanh, 16 of sigmoid, ...
    Product out;        // from z to the residual and the skip; in the last layer to the skip
};

constexpr int MOST_LAYERS = 256;
constexpr int MOST_MEL_LAYERS = 32;

struct Network {
    // sizes, named as in config.py
    Precision precision;
    int residual, skip, hidden, taps, layer_count, mel_count, mel_taps;
    int bands, channels, hop, look_ahead, speaker_count;
    int gate_width;  // of a layer's gate, padded: 2 * padded(residual, 16)
    int order, longest, shortest;  // of the predictions; longest 0: no lags
    Upsampling upsampling;
    HeadKind head;
    int classes, components, parameter_count, draws, features;
    float log_scale_min, pre_emphasis, mel_silence, mel_scale;
    double log_classes;  // natural logarithm of their number, 1 + mu
    int kept_width;      // floats that hold the sums of a gate
    int operand_width;   // floats that hold the operand of any product

    // offsets in a state row, in floats
    std::int64_t level, residual_ring, emphasis, ahead, condition, state_size;
    std::int64_t mel_rings[MOST_MEL_LAYERS];

    // weights
    Product mel[MOST_MEL_LAYERS];
    const float* speakers;  // [speaker_count, channels] or null
    Product predictor, pitch, upsample, projection, input, head_hidden, head_output;
    Layer layers[MOST_LAYERS];
    const float* ramp;  // [hop]: weight of the frame now in linear upsampling
};

// What one stream works with: all that a call needs, allocated before it. Rows are padded to whole
// vectors where a product writes them; "N rows of C" says how many floats the caller must give.
struct Lane {
    // in
    const float* mel;         // [bands, frames] of the caller's
    std::int64_t mel_stride;  // from band to band
    const float* noise;       // [samples, draws]
    const float* forced;      // [samples] or null
    int speaker;
    float temperature;
    // in and out
    float* state;  // [state_size], a copy
    std::int64_t clock;
    int ahead;
    // out
    float* audio;          // [samples] or null
    float* parameters;     // [samples, parameter_count] or null
    std::int64_t samples;  // made so far
    bool broken;           // the sample `samples` came out as NaN or infinity; the lane stands still
    // the desk, laid out by `lay_desk`; contents on entry do not matter
    float* mel_rows[MOST_MEL_LAYERS];  // mel_taps - 1 + FRAMES rows of the layer's inputs
    float* heard;         // 1 + FRAMES rows of channels: what the mel network put out
    float* wide;          // FRAMES rows of the widest product at frame rate
    float* gates;         // 1 + FRAMES rows, or SAMPLES, of all layers' gates
    float* upsampled;     // hop * channels
    float* levels;        // past + hop
    float* residuals;     // longest + hop
    float* coefficients;  // order
    float* lag_weights;   // lags
    float* features;      // one vector
    float* carry;         // residual + skip: x, then the sum of skips
    float* kept;          // SAMPLES rows for each layer: the gate's sums of the older taps
    struct {
        float* gate;      // SAMPLES rows of gate_width
        float* z;         // gate_width / 2
        float* operand;   // of the product at hand: taps, z, skips; SAMPLES rows
    } bench[2];           // of the thread that leads, and of the one that follows
    float* hidden;        // hidden
    float* answer;        // parameter_count
    float* scratch;       // of the head, 2 * classes or components
    float scale, log_scale, gain;  // of the predictors in this frame
    float decoded;                 // sample of the last level
    int slots[MOST_LAYERS];        // of each layer's ring, where this sample's input goes
};

constexpr int MOST_LANES = 16;

// Hand-over of one call's samples between two threads, each with half of the layers, so that the
// weights of each stay in its own core's cache: the leader begins a sample, the follower ends it.
// The lanes belong to whoever's turn it is.
struct Relay {
    alignas(64) std::int64_t there = 0;  // samples handed to the follower; -1 at the end
    alignas(64) std::int64_t back = 0;   // and given back
    alignas(64) int cut = 0;             // the follower's first layer
    int row = 0, t = 0;                  // of the sample at hand
};

// What an instruction set has for a precision.
struct Kernel {
    // Advance at most MOST_LANES lanes that are equally far ahead by so many mel frames. Lanes
    // that break say so and stand still; the others go on. `relay` may be null.
    void (*lead)(const Network&, Lane* lanes, int count, int frames, Relay* relay);
    // End the samples that `lead` begins, on another thread, until it is done.
    void (*follow)(const Network&, Lane* lanes, int count, Relay* relay);
};

// By Precision, one table for each instruction set, in kernel_*.cpp. A set that the compiler does not
// know is not linked, and its table's address is null.
namespace portable { extern const Kernel kernels[3] __attribute__((weak)); }
namespace avx2 { extern const Kernel kernels[3] __attribute__((weak)); }
namespace avx512 { extern const Kernel kernels[3] __attribute__((weak)); }
namespace avx512_fp16 { extern const Kernel kernels[3] __attribute__((weak)); }
namespace amx { extern const Kernel kernels[3] __attribute__((weak)); }

// Set the offsets of a stream's memory, in floats, as engine/weights.py lays it out: every entry
// begins at a multiple of 16.
void lay_state(Network&);

// Lay a lane's desk out in `memory` and return the floats that it takes; null only counts.
std::int64_t lay_desk(const Network&, Lane&, float* memory);

}  // namespace wavewn
