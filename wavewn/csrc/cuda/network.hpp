// The network, sample after sample: input, layers, head. See samples.cu for the idea.
//
// Twin: engine/workspace.py, `generate`; csrc/kernel.hpp.

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
    const float* gates;       // [batch, 1 + frames, layers, R, 2]; learned upsampling [layers, R, 2]
    const float* upsampled;   // [batch, samples, channels], learned upsampling only
    const float* predictors;  // [batch, frames, Shape::predictor_width], with an order only
    const float* noise;       // [batch, samples, draws]
    const float* forced;      // [batch, samples], levels to take instead of drawing them, or null
    float* audio;             // [batch, samples] or null
    float* parameters;        // [batch, samples, Shape::parameters] or null
    Int64* broken;            // [batch], out: the first sample that is not finite, or -1
    Int64 batch, samples;
    float temperature, log_scale_min, pre_emphasis;
};

//     A = 2^f,  B = 2^g,  z = (1 - A) / ((1 + A) (1 + B))  =  tanh(f') sigmoid(g')
//
// f = -2 log2(e) f' and g = -log2(e) g': the factors are in the weights. NaN stays NaN.
WAVEWN_DEVICE float activated(float f, float g) {
    const float a = exp2_of(f > 40 ? 40 : f < -40 ? -40 : f);
    const float b = exp2_of(g > 40 ? 40 : g < -40 ? -40 : g);
    return quotient(1.0f - a, (1.0f + a) * (1.0f + b));
}

// Zero for a finite number, else NaN.
WAVEWN_DEVICE float alarm(float x) { return rounded_product(x, 0.0f); }

template <class S, class B>
struct Network {
    using Gate = Product<S, (S::residual + 7) / 8, S::gate_inputs / TILE>;
    using Residual = Product<S, S::wide_residual / TILE, S::wide_residual / TILE>;
    using Skip = Product<S, S::wide_skip / TILE, S::wide_residual / TILE>;
    using Hidden = Product<S, S::wide_hidden / TILE, S::wide_skip / TILE>;
    using Output = Product<S, S::wide_parameters / TILE, S::wide_hidden / TILE>;
    static constexpr int layer_size = Gate::size + Residual::size + Skip::size;
    static constexpr int tile_words = S::tile_bytes / 16;
    static constexpr int columns = Results<S>::columns;
    static constexpr int older = S::streams * (S::taps - 1) * S::residual;
    static constexpr int older_own = (older + S::threads - 1) / S::threads;
    static constexpr int upsampled = S::streams * S::channels;
    static constexpr int upsampled_own = (upsampled + S::threads - 1) / S::threads;
    static constexpr bool is_linear = S::upsampling == LINEAR;

    B& block;
    const Arguments& a;

    // of each thread, across barriers
    typename Gate::Fetched gate_weights;
    typename Residual::Fetched residual_weights;
    typename Skip::Fetched skip_weights;
    Own<float> x[Residual::own][2][columns];      // the residual
    Sums<S> skips[1][Skip::own];                  // over all layers
    Own<float> now[Gate::own][columns][2];        // condition of f and g: this frame's,
    Own<float> before[Gate::own][columns][2];     // and the one's before
    Own<float> past[most(older_own, 1)];          // inputs of older taps on their way

    // Where in the call, the same for all threads.
    int sample, frame, phase;  // sample = frame * hop + phase

    WAVEWN_DEVICE Network(B& block, const Arguments& a) : block(block), a(a) {}

    // ---- places

    template <class T>
    WAVEWN_DEVICE T* shared(int at) {
        return reinterpret_cast<T*>(block.memory + at);
    }
    WAVEWN_DEVICE Voice& voice(int stream) { return shared<Voice>(S::voices_at)[stream]; }
    WAVEWN_DEVICE Int64 row_of(int stream) { return Int64(block.number()) * S::streams + stream; }
    WAVEWN_DEVICE bool is_there(int stream) { return row_of(stream) < a.batch; }
    // A stream that is not there reads what another has, and writes nothing.
    WAVEWN_DEVICE Int64 readable(int stream) {
        return is_there(stream) ? row_of(stream) : a.batch - 1;
    }
    static WAVEWN_DEVICE int group_of(int thread) { return thread % LANES / 4; }
    static WAVEWN_DEVICE int stream_of(int thread, int column) { return thread % 4 * 2 + column; }
    template <class P>
    static WAVEWN_DEVICE int output_of(int thread, int i, int row) {
        return (thread / LANES + i * S::warps) * TILE + 8 * row + group_of(thread);
    }
    WAVEWN_DEVICE Source source(int tile) {
        const bool is_resident = tile < S::resident;
        const Word* const from = is_resident ? shared<const Word>(0) : a.weights;
        return {from + Int64(tile) * tile_words, is_resident};
    }
    WAVEWN_DEVICE Source gate_of(int layer) { return source(layer * layer_size); }
    WAVEWN_DEVICE Source residual_of(int layer) {
        return source(layer * layer_size + Gate::size);
    }
    WAVEWN_DEVICE Source skip_of(int layer) {
        return source(layer * layer_size + Gate::size + Residual::size);
    }
    WAVEWN_DEVICE Source hidden_source() { return source(S::layers * layer_size); }
    WAVEWN_DEVICE Source output_source() { return source(S::layers * layer_size + Hidden::size); }

    WAVEWN_DEVICE void put(int operand, int inputs, int stream, int index, float value) {
        const int at = stream * S::stride(inputs) + index;
        if constexpr (S::half)
            shared<unsigned short>(operand)[at] = half_of(value);
        else
            shared<float>(operand)[at] = value;
    }
    // Slot of sample `time` in the ring of a layer: time mod (K - 1) d, with d a power of two.
    static WAVEWN_DEVICE int slot_of(Int64 time, int layer) {
        const int bits = S::dilation_bits(layer);
        const Int64 cycle = (time >> bits) % most(S::taps - 1, 1);
        return static_cast<int>(cycle << bits | (time & ((1 << bits) - 1)));
    }
    WAVEWN_DEVICE float* ring(Int64 row, int layer) {
        return a.state + row * S::state_size + shared<Int64>(S::rings_at)[layer];
    }

    // ---- what is fetched ahead

    // Begin to read what the older taps of a layer meet, `steps` samples from the one at hand.
    WAVEWN_DEVICE void read_past(int layer, int steps) {
        block.each([&](int thread) {
            WAVEWN_UNROLL
            for (int n = 0; n < older_own; ++n) {
                const int i = thread + n * S::threads;
                if (i >= older) break;
                const int stream = i / ((S::taps - 1) * S::residual);
                const int tap = i / S::residual % (S::taps - 1), channel = i % S::residual;
                const int rows = (S::taps - 1) << S::dilation_bits(layer);
                int slot = slot_of(voice(stream).clock + steps, layer);
                slot += tap << S::dilation_bits(layer);
                if (slot >= rows) slot -= rows;
                past[n][thread] = ring(readable(stream), layer)[slot * S::residual + channel];
            }
        });
    }
    WAVEWN_DEVICE void write_past() {
        block.each([&](int thread) {
            WAVEWN_UNROLL
            for (int n = 0; n < older_own; ++n) {
                const int i = thread + n * S::threads;
                if (i >= older) break;
                const int stream = i / ((S::taps - 1) * S::residual);
                const int tap = i / S::residual % (S::taps - 1), channel = i % S::residual;
                put(S::gate_bytes_at, S::gate_inputs, stream,
                    S::past_at + tap * S::wide_residual + channel, past[n][thread]);
            }
        });
    }
    // Begin to read the condition of a layer's gate in a frame.
    WAVEWN_DEVICE void read_condition(int layer, int of_frame) {
        block.each([&](int thread) {
            WAVEWN_UNROLL
            for (int i = 0; i < Gate::own; ++i)
                WAVEWN_UNROLL
                for (int n = 0; n < columns; ++n) {
                    const int channel = channel_of(thread, i), stream = stream_of(thread, n);
                    if (channel >= S::residual || stream >= S::streams) continue;
                    Int64 row = layer;
                    if constexpr (S::upsampling != TRANSPOSED) {
                        const Int64 rows = 1 + a.samples / S::hop;
                        row += (readable(stream) * rows + of_frame) * S::layers;
                    }
                    const float* at = a.gates + (row * S::residual + channel) * 2;
                    if constexpr (is_linear) {
                        before[i][n][0][thread] = at[0];
                        before[i][n][1][thread] = at[1];
                    }
                    if constexpr (S::upsampling != TRANSPOSED) at += S::layers * S::residual * 2;
                    now[i][n][0][thread] = at[0];
                    now[i][n][1][thread] = at[1];
                }
        });
    }
    static WAVEWN_DEVICE int channel_of(int thread, int i) {
        return (thread / LANES + i * S::warps) * 8 + group_of(thread);
    }
    // Learned upsampling: the condition of a sample is an input of every gate.
    WAVEWN_DEVICE void read_upsampled(int of_sample) {
        block.each([&](int thread) {
            for (int i = thread; i < upsampled; i += S::threads) {
                const int stream = i / S::channels, channel = i % S::channels;
                const Int64 at = readable(stream) * a.samples + of_sample;
                put(S::gate_bytes_at, S::gate_inputs, stream, channel,
                    a.upsampled[at * S::channels + channel]);
            }
        });
    }

    // ---- a sample

    // x = W features + b, of what was drawn last
    WAVEWN_DEVICE void input() {
        block.each([&](int thread) {
            WAVEWN_UNROLL
            for (int i = 0; i < Residual::own; ++i)
                WAVEWN_UNROLL
                for (int row = 0; row < 2; ++row)
                    WAVEWN_UNROLL
                    for (int n = 0; n < columns; ++n) {
                        const int channel = output_of<Residual>(thread, i, row);
                        const int stream = stream_of(thread, n);
                        if (channel >= S::residual || stream >= S::streams) continue;
                        float sum = a.constants[S::input_bias_at + channel];
                        WAVEWN_UNROLL
                        for (int f = 0; f < S::features; ++f)
                            sum = fused(a.constants[f * S::wide_residual + channel],
                                        voice(stream).features[f], sum);
                        x[i][row][n][thread] = sum;
                        hand_on(0, stream, channel, sum);
                    }
            WAVEWN_UNROLL
            for (int i = 0; i < Skip::own; ++i)
                WAVEWN_UNROLL
                for (int n = 0; n < Sums<S>::count; ++n) skips[0][i].of[n][thread] = 0;
        });
    }
    // Give a layer its input: to its gate, and to the ring for later samples.
    WAVEWN_DEVICE void hand_on(int layer, int stream, int channel, float value) {
        put(S::gate_bytes_at, S::gate_inputs, stream, S::input_at + channel, value);
        if constexpr (S::taps > 1) {
            if (!is_there(stream)) return;
            const int slot = slot_of(voice(stream).clock, layer);
            ring(row_of(stream), layer)[slot * S::residual + channel] = value;
        }
    }

    // z = tanh(f) sigmoid(g), (f, g) = condition + W [condition, older taps, x]
    WAVEWN_DEVICE void gate(int layer) {
        const bool is_last = layer + 1 == S::layers;
        begin<S, Residual>(block, residual_of(layer), residual_weights);
        begin<S, Skip>(block, skip_of(layer), skip_weights);
        read_past(is_last ? 0 : layer + 1, is_last);
        constexpr int chains = Gate::step > 1 ? 2 : 1;
        Sums<S> sums[chains][Gate::own];
        WAVEWN_UNROLL
        for (int c = 0; c < chains; ++c)
            WAVEWN_UNROLL
            for (int i = 0; i < Gate::own; ++i) clear(block, sums[c][i]);
        multiply<S, Gate, chains>(block, gate_of(layer), gate_weights,
                                  shared<const char>(S::gate_bytes_at), row_bytes(S::gate_inputs),
                                  sums);
        const float weight = static_cast<float>(phase + 1) / static_cast<float>(S::hop);
        WAVEWN_UNROLL
        for (int i = 0; i < Gate::own; ++i) {
            if constexpr (chains == 2) add(block, sums[1][i], sums[0][i]);
            Results<S> result;
            join<S>(block, sums[0][i], result);
            block.each([&](int thread) {
                WAVEWN_UNROLL
                for (int n = 0; n < columns; ++n) {
                    const int channel = channel_of(thread, i), stream = stream_of(thread, n);
                    if (channel >= S::residual || stream >= S::streams) continue;
                    float both[2];
                    WAVEWN_UNROLL
                    for (int row = 0; row < 2; ++row) {
                        float condition = now[i][n][row][thread];
                        if constexpr (is_linear) {
                            const float from = before[i][n][row][thread];
                            condition = fused(condition - from, weight, from);
                        }
                        both[row] = result.of[row][n][thread] + condition;
                    }
                    put(S::z_at, S::wide_residual, stream, channel, activated(both[0], both[1]));
                }
            });
        }
    }
    static WAVEWN_DEVICE constexpr int row_bytes(int inputs) {
        return S::stride(inputs) * S::operand_bytes;
    }

    // x = x + W_res z + b,  skips = skips + W_skip z. The residual first: the next layer waits for it.
    WAVEWN_DEVICE void output(int layer) {
        const bool is_last = layer + 1 == S::layers;
        const int next = is_last ? 0 : layer + 1;
        begin<S, Gate>(block, gate_of(next), gate_weights);
        read_condition(next, is_last ? next_frame() : frame);
        const char* const z = shared<const char>(S::z_at);
        if (!is_last) {
            Sums<S> sums[1][Residual::own];
            WAVEWN_UNROLL
            for (int i = 0; i < Residual::own; ++i) clear(block, sums[0][i]);
            multiply<S, Residual, 1>(block, residual_of(layer), residual_weights, z,
                                     row_bytes(S::wide_residual), sums);
            WAVEWN_UNROLL
            for (int i = 0; i < Residual::own; ++i) {
                Results<S> result;
                join<S>(block, sums[0][i], result);
                block.each([&](int thread) {
                    WAVEWN_UNROLL
                    for (int row = 0; row < 2; ++row)
                        WAVEWN_UNROLL
                        for (int n = 0; n < columns; ++n) {
                            const int channel = output_of<Residual>(thread, i, row);
                            const int stream = stream_of(thread, n);
                            if (channel >= S::residual || stream >= S::streams) continue;
                            const int bias = layer * S::wide_residual + channel;
                            x[i][row][n][thread] += result.of[row][n][thread] +
                                                    a.constants[S::residual_bias_at + bias];
                            hand_on(layer + 1, stream, channel, x[i][row][n][thread]);
                        }
                });
            }
        }
        multiply<S, Skip, 1>(block, skip_of(layer), skip_weights, z, row_bytes(S::wide_residual),
                             skips);
        write_past();
    }

    // What a product of the head leaves: bias added, rectified, an operand of the next.
    template <class P, int WIDTH>
    WAVEWN_DEVICE void rectify(Sums<S> (&sums)[1][P::own], int bias, int operand, bool watched) {
        WAVEWN_UNROLL
        for (int i = 0; i < P::own; ++i) {
            Results<S> result;
            join<S>(block, sums[0][i], result);
            block.each([&](int thread) {
                if (thread >= P::busy(i) * LANES) return;
                WAVEWN_UNROLL
                for (int row = 0; row < 2; ++row)
                    WAVEWN_UNROLL
                    for (int n = 0; n < columns; ++n) {
                        const int index = output_of<P>(thread, i, row);
                        const int stream = stream_of(thread, n);
                        if (stream >= S::streams) continue;
                        const float y = result.of[row][n][thread] + a.constants[bias + index];
                        if (watched && alarm(y) != 0.0f) voice(stream).unsound = 1;
                        put(operand, WIDTH, stream, index, y < 0 ? 0 : y);  // NaN stays
                    }
            });
        }
    }
    template <class P>
    WAVEWN_DEVICE void start(Sums<S> (&sums)[1][P::own]) {
        WAVEWN_UNROLL
        for (int i = 0; i < P::own; ++i) clear(block, sums[0][i]);
    }

    // From the sums of skips to the head's parameters.
    WAVEWN_DEVICE void answer() {
        typename Hidden::Fetched hidden_weights;
        typename Output::Fetched output_weights;
        begin<S, Hidden>(block, hidden_source(), hidden_weights);
        block.each([&](int thread) {
            WAVEWN_UNROLL
            for (int i = 0; i < Residual::own; ++i)
                WAVEWN_UNROLL
                for (int n = 0; n < columns; ++n) {
                    const int stream = stream_of(thread, n);
                    if (stream >= S::streams) continue;
                    WAVEWN_UNROLL
                    for (int row = 0; row < 2; ++row) {
                        if (output_of<Residual>(thread, i, row) >= S::residual) continue;
                        if (alarm(x[i][row][n][thread]) != 0.0f) voice(stream).unsound = 1;
                    }
                }
        });
        rectify<Skip, S::wide_skip>(skips, S::skip_bias_at, S::skips_at, true);
        block.barrier();
        begin<S, Output>(block, output_source(), output_weights);
        if constexpr (S::channels > 0) read_upsampled(next_sample());
        Sums<S> hidden[1][Hidden::own];
        start<Hidden>(hidden);
        multiply<S, Hidden, 1>(block, hidden_source(), hidden_weights,
                               shared<const char>(S::skips_at), row_bytes(S::wide_skip), hidden);
        rectify<Hidden, S::wide_hidden>(hidden, S::hidden_bias_at, S::hidden_at, false);
        block.barrier();
        Sums<S> answers[1][Output::own];
        start<Output>(answers);
        multiply<S, Output, 1>(block, output_source(), output_weights,
                               shared<const char>(S::hidden_at), row_bytes(S::wide_hidden),
                               answers);
        WAVEWN_UNROLL
        for (int i = 0; i < Output::own; ++i) {
            Results<S> result;
            join<S>(block, answers[0][i], result);
            block.each([&](int thread) {
                if (thread >= Output::busy(i) * LANES) return;
                WAVEWN_UNROLL
                for (int row = 0; row < 2; ++row)
                    WAVEWN_UNROLL
                    for (int n = 0; n < columns; ++n) {
                        const int index = output_of<Output>(thread, i, row);
                        const int stream = stream_of(thread, n);
                        if (stream >= S::streams) continue;
                        shared<float>(S::answer_at)[stream * S::wide_parameters + index] =
                            result.of[row][n][thread] + a.constants[S::output_bias_at + index];
                    }
            });
        }
        block.barrier();
    }

    WAVEWN_DEVICE int next_sample() const {
        return sample + 1 < a.samples ? sample + 1 : sample;  // after the last any will do
    }
    WAVEWN_DEVICE int next_frame() const {
        return phase + 1 == S::hop && sample + 1 < a.samples ? frame + 1 : frame;
    }
};

}  // namespace wavewn
