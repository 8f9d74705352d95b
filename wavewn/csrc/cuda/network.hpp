// The network of a sample: input, layers, head.
//
// Twin: engine/workspace.py, `generate`; csrc/kernel.hpp, `layer_step` and `answer`.

#pragma once

#include "desk.hpp"

namespace wavewn {

//     A = 2^f,  B = 2^g,  z = (1 - A) / ((1 + A) (1 + B))  =  tanh(f') sigmoid(g')
//
// f = -2 log2(e) f' and g = -log2(e) g': the factors are in the weights. NaN stays NaN.
WAVEWN_DEVICE float activated(float f, float g) {
    const float a = exp2_of(f > 40 ? 40 : f < -40 ? -40 : f);
    const float b = exp2_of(g > 40 ? 40 : g < -40 ? -40 : g);
    return quotient(1.0f - a, (1.0f + a) * (1.0f + b));
}

WAVEWN_DEVICE float rectified(float x) { return x < 0 ? 0 : x; }  // NaN stays NaN

// Zero for a finite number, else NaN.
WAVEWN_DEVICE float alarm(float x) { return rounded_product(x, 0.0f); }

template <class S, class B>
struct Network : Desk<S, B> {
    using Base = Desk<S, B>;
    using typename Base::Gate, typename Base::Residual, typename Base::Skip;
    using typename Base::Hidden, typename Base::Output;
    using Base::a, Base::block, Base::columns, Base::voice;

    // of each thread, from layer to layer
    Own<float> x[Residual::own][2][columns];  // the residual
    Sums<S> skips[1][Skip::own];

    WAVEWN_DEVICE Network(B& block, const Arguments& a) : Base(block, a) {}

    // Call f(thread, i, row, column, output, stream) for what a thread has of a pass of a product.
    template <class P, class F>
    WAVEWN_DEVICE void each_output(int pass, int outputs, F f) {
        block.each([&](int thread) {
            WAVEWN_UNROLL
            for (int i = 0; i < P::own; ++i)
                WAVEWN_UNROLL
                for (int row = 0; row < 2; ++row)
                    WAVEWN_UNROLL
                    for (int n = 0; n < columns; ++n) {
                        const int output = Base::template output_of<P>(thread, pass, i, row);
                        const int stream = Base::stream_of(thread, n);
                        if (output < outputs && stream < S::streams)
                            f(thread, i, row, n, output, stream);
                    }
        });
    }

    // x = W features + b, of what was drawn last
    WAVEWN_DEVICE void input() {
        WAVEWN_UNROLL
        for (int i = 0; i < Skip::own; ++i) clear(block, skips[0][i]);
        each_output<Residual>(
            0, S::residual, [&](int thread, int i, int row, int n, int channel, int stream) {
                float sum = a.constants[S::input_bias_at + channel];
                WAVEWN_UNROLL
                for (int f = 0; f < S::features; ++f)
                    sum = fused(a.constants[f * S::wide_residual + channel],
                                voice(stream).features[f], sum);
                x[i][row][n][thread] = sum;
                hand_on(stream, channel, sum, Base::slot(stream, 0));
            });
    }
    // Give a layer its input: to its gate, and for later samples to a slot of its ring.
    WAVEWN_DEVICE void hand_on(int stream, int channel, float value, float* slot) {
        Base::put_gate(stream, S::input_at + channel, value);
        if (S::taps > 1 && Base::is_there(stream)) slot[channel] = value;
    }

    // z = tanh(f) sigmoid(g), (f, g) = condition + W [condition, older taps, x]
    WAVEWN_DEVICE void gate(int layer) {
        const bool is_last = layer + 1 == S::layers;
        begin<S, Residual>(block, Base::residual_of(layer), 0, Base::residual_weights);
        begin<S, Skip>(block, Base::skip_of(layer), 0, Base::skip_weights);
        Base::read_past(is_last ? 0 : layer + 1, is_last);
        Results<S> results[Gate::own];
        compute<S, Gate>(block, Base::gate_of(layer), 0, Base::gate_weights,
                         Base::template shared<const char>(S::gate_at),
                         Base::row_bytes(S::gate_inputs), results);
        const float weight = static_cast<float>(Base::phase + 1) / static_cast<float>(S::hop);
        block.each([&](int thread) {
            WAVEWN_UNROLL
            for (int i = 0; i < Gate::own; ++i)
                WAVEWN_UNROLL
                for (int n = 0; n < columns; ++n) {
                    const int channel = Base::channel_of(thread, i);
                    const int stream = Base::stream_of(thread, n);
                    if (channel >= S::residual || stream >= S::streams) continue;
                    float both[2];
                    WAVEWN_UNROLL
                    for (int row = 0; row < 2; ++row) {
                        float own = Base::condition[0][i][n][row][thread];
                        if constexpr (Base::is_linear) {
                            const float before = Base::condition[1][i][n][row][thread];
                            own = fused(own - before, weight, before);
                        }
                        both[row] = results[i].of[row][n][thread] + own;
                    }
                    Base::put(S::z_at, S::wide_residual, stream, channel,
                              activated(both[0], both[1]));
                }
        });
    }

    // x = x + W_res z + b,  skips = skips + W_skip z. The next layer waits for the first.
    WAVEWN_DEVICE void output(int layer) {
        const bool is_last = layer + 1 == S::layers;
        const int next = is_last ? 0 : layer + 1;
        const char* const z = Base::template shared<const char>(S::z_at);
        constexpr int row_bytes = Base::row_bytes(S::wide_residual);
        begin<S, Gate>(block, Base::gate_of(next), 0, Base::gate_weights);
        Base::read_condition(next, is_last ? Base::next_frame() : Base::frame);
        if (!is_last) {
            Own<float*> slot[columns];
            block.each([&](int thread) {
                WAVEWN_UNROLL
                for (int n = 0; n < columns; ++n)
                    slot[n][thread] =
                        Base::slot(least(Base::stream_of(thread, n), S::streams - 1), next);
            });
            Results<S> results[Residual::own];
            compute<S, Residual>(block, Base::residual_of(layer), 0, Base::residual_weights, z,
                                 row_bytes, results);
            each_output<Residual>(
                0, S::residual, [&](int thread, int i, int row, int n, int channel, int stream) {
                    const int bias = S::residual_bias_at + layer * S::wide_residual + channel;
                    x[i][row][n][thread] += results[i].of[row][n][thread] + a.constants[bias];
                    hand_on(stream, channel, x[i][row][n][thread], slot[n][thread]);
                });
        }
        multiply<S, Skip>(block, Base::skip_of(layer), 0, Base::skip_weights, z, row_bytes, skips);
        Base::write_past();
    }

    // From the sums of skips to the head's parameters.
    WAVEWN_DEVICE void answer() {
        const Source hidden_source = Base::source(Base::head_at);
        const Source output_source = Base::source(Base::head_at + Hidden::size);
        typename Hidden::Fetched hidden_weights;
        typename Output::Fetched output_weights;
        begin<S, Hidden>(block, hidden_source, 0, hidden_weights);
        each_output<Residual>(0, S::residual,
                              [&](int thread, int i, int row, int n, int, int stream) {
                                  if (alarm(x[i][row][n][thread]) != 0) mark(voice(stream).unsound);
                              });
        Results<S> sums[Skip::own];
        WAVEWN_UNROLL
        for (int i = 0; i < Skip::own; ++i) join<S>(block, skips[0][i], sums[i]);
        each_output<Skip>(
            0, S::wide_skip, [&](int thread, int i, int row, int n, int output, int stream) {
                const float y = sums[i].of[row][n][thread] + a.constants[S::skip_bias_at + output];
                if (alarm(y) != 0) mark(voice(stream).unsound);
                Base::put(S::skips_at, S::wide_skip, stream, output, rectified(y));
            });
        block.barrier();
        begin<S, Output>(block, output_source, 0, output_weights);
        Base::read_upsampled(Base::next_sample());
        whole<Hidden>(hidden_source, hidden_weights, S::skips_at, S::wide_skip, S::wide_hidden,
                      [&](int output, int stream, float y) {
                          y += a.constants[S::hidden_bias_at + output];
                          Base::put(S::hidden_at, S::wide_hidden, stream, output, rectified(y));
                      });
        block.barrier();
        whole<Output>(output_source, output_weights, S::hidden_at, S::wide_hidden,
                      S::wide_parameters, [&](int output, int stream, float y) {
                          y += a.constants[S::output_bias_at + output];
                          Base::answer_of(stream)[output] = y;
                      });
        block.barrier();
    }
    // All passes of a product of the head; f(output, stream, result).
    template <class P, class F>
    WAVEWN_DEVICE void whole(const Source& from, typename P::Fetched& fetched, int operand,
                             int inputs, int outputs, F f) {
        WAVEWN_ROLL
        for (int pass = 0; pass < P::passes; ++pass) {
            Results<S> results[P::own];
            compute<S, P>(block, from, pass, fetched, Base::template shared<const char>(operand),
                          Base::row_bytes(inputs), results);
            if (pass + 1 < P::passes) begin<S, P>(block, from, pass + 1, fetched);
            each_output<P>(pass, outputs,
                           [&](int thread, int i, int row, int n, int output, int stream) {
                               f(output, stream, results[i].of[row][n][thread]);
                           });
        }
    }
};

}  // namespace wavewn
