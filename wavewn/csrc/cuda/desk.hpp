// The desk of a block: where its things lie, and what it fetches before it is needed.
//
// Twin: engine/workspace.py, `load` and `condition`.

#pragma once

#include "products.hpp"
#include "sampling.hpp"
#include "shape.hpp"

namespace wavewn {

// What a launch is given. Rows are streams; everything is contiguous.
struct Arguments {
    const Word* weights;      // tiles of: the layers' gates, residuals, skips; hidden; output
    const float* constants;   // see Shape
    float* state;             // [batch, Shape::state_size]
    const Int64* clock;       // [batch]
    const float* gates;       // [batch, 1 + frames, layers, R, 2], or the bias: [layers, R, 2]
    const float* upsampled;   // [batch, samples, channels], with learned upsampling only
    const float* predictors;  // [batch, frames, Shape::predictor_width], with an order only
    const float* noise;       // [batch, samples, draws]
    const float* forced;      // [batch, samples], levels to take instead of drawing them, or null
    float* audio;             // [batch, samples] or null
    float* parameters;        // [batch, samples, Shape::parameters] or null
    Int64* broken;            // [batch], out: the first sample that is not finite, or -1
    Int64 batch, samples;
    float temperature, log_scale_min, pre_emphasis;
};

template <class S, class B>
struct Desk {
    using Gate = Product<S, (S::residual + 7) / 8, S::gate_inputs / TILE, S::threads>;
    using Residual = Product<S, S::wide_residual / TILE, S::wide_residual / TILE, S::threads>;
    using Skip = Product<S, S::wide_skip / TILE, S::wide_residual / TILE, S::threads>;
    using Hidden = Product<S, S::wide_hidden / TILE, S::wide_skip / TILE, 2>;
    using Output = Product<S, S::wide_parameters / TILE, S::wide_hidden / TILE, 2>;
    static constexpr int layer_size = Gate::size + Residual::size + Skip::size;
    static constexpr int head_at = S::layers * layer_size;
    static constexpr int columns = Results<S>::columns;
    static constexpr int past = S::streams * (S::taps - 1) * S::residual;  // inputs of older taps
    static constexpr int own_past = (past + S::threads - 1) / S::threads;
    static constexpr bool is_linear = S::upsampling == LINEAR;

    B& block;
    const Arguments& a;
    int sample = 0, frame = 0, phase = 0;  // sample = frame * hop + phase

    // of each thread, on their way across barriers
    typename Gate::Fetched gate_weights;
    typename Residual::Fetched residual_weights;
    typename Skip::Fetched skip_weights;
    Own<float> condition[2][Gate::own][columns][2];  // of this frame and the one before: f and g
    Own<float> older[most(own_past, 1)];             // what older taps read

    WAVEWN_DEVICE Desk(B& block, const Arguments& a) : block(block), a(a) {}

    // ---- where

    template <class T>
    WAVEWN_DEVICE T* shared(int at) {
        return reinterpret_cast<T*>(block.memory + at);
    }
    WAVEWN_DEVICE Voice& voice(int stream) { return shared<Voice>(S::voices_at)[stream]; }
    WAVEWN_DEVICE float* answer_of(int stream) {
        return shared<float>(S::answer_at) + stream * S::wide_parameters;
    }
    WAVEWN_DEVICE float* predictor_of(int stream) {
        return shared<float>(S::predictors_at) + stream * S::predictor_row;
    }
    WAVEWN_DEVICE float* levels_of(int stream) {
        return shared<float>(S::levels_at) + stream * S::level_row;
    }
    WAVEWN_DEVICE float* residuals_of(int stream) {
        return shared<float>(S::residuals_at) + stream * S::residual_row;
    }

    WAVEWN_DEVICE Int64 row_of(int stream) { return Int64(block.number()) * S::streams + stream; }
    WAVEWN_DEVICE bool is_there(int stream) { return row_of(stream) < a.batch; }
    // A stream that is not there reads what another has, and writes nothing.
    WAVEWN_DEVICE Int64 readable(int stream) {
        return is_there(stream) ? row_of(stream) : a.batch - 1;
    }
    WAVEWN_DEVICE float* memory_of(int stream) {
        return a.state + readable(stream) * S::state_size;
    }

    // What lane 4 g + q has of a warp's tile i: see Results.
    static WAVEWN_DEVICE int stream_of(int thread, int column) { return thread % 4 * 2 + column; }
    template <class P>
    static WAVEWN_DEVICE int output_of(int thread, int pass, int i, int row) {
        return P::tile_of(thread / LANES, pass, i) * TILE + 8 * row + thread % LANES / 4;
    }
    // A gate's tile holds f and g of eight channels, so that both meet in a lane.
    static WAVEWN_DEVICE int channel_of(int thread, int i) {
        return Gate::tile_of(thread / LANES, 0, i) * 8 + thread % LANES / 4;
    }

    // The product whose first tile has this number; the first ones are in shared memory.
    WAVEWN_DEVICE Source source(int tile) {
        const bool is_resident = tile < S::resident;
        const Word* const from = is_resident ? shared<const Word>(0) : a.weights;
        return {from + Int64(tile) * (S::tile_bytes / 16), is_resident};
    }
    WAVEWN_DEVICE Source gate_of(int layer) { return source(layer * layer_size); }
    WAVEWN_DEVICE Source residual_of(int layer) { return source(layer * layer_size + Gate::size); }
    WAVEWN_DEVICE Source skip_of(int layer) {
        return source(layer * layer_size + Gate::size + Residual::size);
    }

    static WAVEWN_DEVICE constexpr int row_bytes(int inputs) {
        return S::stride(inputs) * S::operand_bytes;
    }
    // Write one input of an operand.
    WAVEWN_DEVICE void put(int operand, int inputs, int stream, int index, float value) {
        const int at = stream * S::stride(inputs) + index;
        if constexpr (S::half)
            shared<unsigned short>(operand)[at] = half_of(value);
        else
            shared<float>(operand)[at] = value;
    }
    WAVEWN_DEVICE void put_gate(int stream, int index, float value) {
        put(S::gate_at, S::gate_inputs, stream, index, value);
    }

    // Where a layer keeps its input of sample `time`: row time mod (K - 1) d, d a power of two, of
    // its ring.
    static WAVEWN_DEVICE int slot_of(Int64 time, int layer) {
        const int bits = S::dilation_bits(layer);
        const Int64 cycle = (time >> bits) % most(S::taps - 1, 1);
        return static_cast<int>(cycle << bits | (time & ((1 << bits) - 1)));
    }
    WAVEWN_DEVICE float* ring(int stream, int layer) {
        return memory_of(stream) + shared<Int64>(S::rings_at)[layer];
    }
    WAVEWN_DEVICE float* slot(int stream, int layer) {
        return ring(stream, layer) + slot_of(voice(stream).clock, layer) * S::residual;
    }

    // ---- before it is needed

    // Begin to read what the older taps of a layer meet, `steps` samples from the one at hand.
    WAVEWN_DEVICE void read_past(int layer, int steps) {
        each_past([&](int thread, int n, int stream, int tap, int channel) {
            const int rows = (S::taps - 1) << S::dilation_bits(layer);
            int from = slot_of(voice(stream).clock + steps, layer);
            from += tap << S::dilation_bits(layer);
            if (from >= rows) from -= rows;
            older[n][thread] = ring(stream, layer)[from * S::residual + channel];
        });
    }
    WAVEWN_DEVICE void write_past() {
        each_past([&](int thread, int n, int stream, int tap, int channel) {
            put_gate(stream, S::past_at + tap * S::wide_residual + channel, older[n][thread]);
        });
    }
    template <class F>
    WAVEWN_DEVICE void each_past(F f) {
        constexpr int each = (S::taps - 1) * S::residual;
        if constexpr (each > 0)
            block.each([&](int thread) {
                WAVEWN_UNROLL
                for (int n = 0; n < own_past; ++n) {
                    const int i = thread + n * S::threads;
                    if (i < past) f(thread, n, i / each, i % each / S::residual, i % S::residual);
                }
            });
    }

    // Begin to read the condition of a layer's gate in a frame.
    WAVEWN_DEVICE void read_condition(int layer, int of_frame) {
        constexpr int width = S::layers * S::residual * 2;
        block.each([&](int thread) {
            WAVEWN_UNROLL
            for (int i = 0; i < Gate::own; ++i)
                WAVEWN_UNROLL
                for (int n = 0; n < columns; ++n) {
                    const int channel = channel_of(thread, i), stream = stream_of(thread, n);
                    if (channel >= S::residual || stream >= S::streams) continue;
                    const float* from = a.gates + (layer * S::residual + channel) * 2;
                    if constexpr (S::upsampling != TRANSPOSED)
                        from += (readable(stream) * (1 + a.samples / S::hop) + of_frame) * width;
                    WAVEWN_UNROLL
                    for (int row = 0; row < 2; ++row) {
                        if constexpr (is_linear) condition[1][i][n][row][thread] = from[row];
                        condition[0][i][n][row][thread] =
                            from[S::upsampling == TRANSPOSED ? row : width + row];
                    }
                }
        });
    }

    // Learned upsampling: the condition of a sample is an input of every gate.
    WAVEWN_DEVICE void read_upsampled(int of_sample) {
        if constexpr (S::channels > 0)
            block.each([&](int thread) {
                for (int i = thread; i < S::streams * S::channels; i += S::threads) {
                    const int stream = i / S::channels, channel = i % S::channels;
                    const Int64 at = readable(stream) * a.samples + of_sample;
                    put_gate(stream, channel, a.upsampled[at * S::channels + channel]);
                }
            });
    }

    // After the last sample of a call any will do.
    WAVEWN_DEVICE int next_sample() const { return sample + 1 < a.samples ? sample + 1 : sample; }
    WAVEWN_DEVICE int next_frame() const {
        return phase + 1 == S::hop && sample + 1 < a.samples ? frame + 1 : frame;
    }
    WAVEWN_DEVICE void go_on() {
        ++sample;
        if (++phase == S::hop) {
            phase = 0;
            ++frame;
        }
    }
};

}  // namespace wavewn
