// A launch: streams are taken up, advanced sample after sample, and laid down. See samples.cu.
//
// Twin: engine/workspace.py; csrc/kernel.hpp, `lead`.

#pragma once

#include "network.hpp"
#include "sampling.hpp"
#include "shape.hpp"

namespace wavewn {

// A warp's stream among those that are served at once, and where its numbers are.
template <class S, class B>
struct Served {
    Some<B> some;
    Own<int> stream;
    Own<Voice*> voice;
    Own<float*> answer, levels, residuals, predictor;

    WAVEWN_DEVICE Served(B& block, Network<S, B>& net, int first)
        : some{block, least(S::warps, S::streams - first)} {
        some.each([&](int thread) {
            const int n = stream[thread] = first + thread / LANES;
            voice[thread] = &net.voice(n);
            answer[thread] = net.answer_of(n);
            levels[thread] = net.levels_of(n);
            residuals[thread] = net.residuals_of(n);
            predictor[thread] = net.predictor_of(n);
        });
    }
};

// Read the predictors of a frame.
template <class S, class B>
WAVEWN_DEVICE void take_predictor(Network<S, B>& net, Served<S, B>& s, int frame) {
    if constexpr (S::order > 0) {
        const Int64 frames = net.a.samples / S::hop;
        s.some.each([&](int thread) {
            const Int64 row = net.readable(s.stream[thread]) * frames + frame;
            for (int i = thread % LANES; i < S::predictor_width; i += LANES)
                s.predictor[thread][i] = net.a.predictors[row * S::predictor_width + i];
        });
        s.some.together();
    }
}

// Draw the sample at hand of every stream, and prepare what the network is fed next.
template <class S, class B>
WAVEWN_DEVICE void speak(Network<S, B>& net) {
    const Arguments& a = net.a;
    const bool ends_frame = net.phase + 1 == S::hop;
    for (int first = 0; first < S::streams; first += S::warps) {
        Served<S, B> s(net.block, net, first);
        Own<float> alarms, level;
        Own<const float*> noise;
        s.some.each([&](int thread) {
            if constexpr (S::order > 0) {
                const float* const frame = s.predictor[thread] + S::order + S::lags;
                float* const mean = s.answer[thread] + S::parameters - 2 * S::components;
                for (int i = thread % LANES; i < S::components; i += LANES) {
                    mean[i] = s.voice[thread]->location + frame[0] * mean[i];
                    mean[S::components + i] += frame[1];
                }
            }
        });
        s.some.together();
        s.some.each([&](int thread) {
            alarms[thread] = 0;
            for (int i = thread % LANES; i < S::parameters; i += LANES)
                alarms[thread] += alarm(s.answer[thread][i]);
        });
        sum_up(s.some, alarms);
        s.some.each([&](int thread) {
            Voice& v = *s.voice[thread];
            const Int64 at = net.readable(s.stream[thread]) * a.samples + net.sample;
            noise[thread] = a.noise + at * S::draws;
            if (alarms[thread] != 0) mark(v.unsound);
            if (a.parameters == nullptr || !net.is_there(s.stream[thread])) return;
            for (int i = thread % LANES; i < S::parameters; i += LANES)
                a.parameters[at * S::parameters + i] = s.answer[thread][i];
        });
        s.some.together();
        if (a.forced == nullptr)
            draw<S>(s.some, s.answer, noise, a.temperature, a.log_scale_min, level);
        else
            s.some.each([&](int thread) {
                level[thread] =
                    a.forced[net.readable(s.stream[thread]) * a.samples + net.sample];
            });
        s.some.each([&](int thread) {
            Voice& v = *s.voice[thread];
            if (thread % LANES || v.broken_at >= 0) return;
            if (v.unsound) {
                v.broken_at = net.sample;
                return;
            }
            s.levels[thread][v.level_slot] = level[thread];
            if (++v.level_slot == S::levels_kept) v.level_slot = 0;
            if constexpr (S::order > 0) {
                const float scale = s.predictor[thread][S::order + S::lags];
                s.residuals[thread][v.residual_slot] = (level[thread] - v.prediction) / scale;
                if (++v.residual_slot == S::residuals_kept) v.residual_slot = 0;
            }
            v.emphasis = rounded_sum(decoded<S>(level[thread]),
                                     rounded_product(v.emphasis, a.pre_emphasis));
            ++v.clock;
            if (a.audio != nullptr && net.is_there(s.stream[thread]))
                a.audio[net.row_of(s.stream[thread]) * a.samples + net.sample] =
                    bounded(v.emphasis);
        });
        s.some.together();
        if (ends_frame) take_predictor(net, s, net.next_frame());
        predict<S>(s.some, s.voice, s.predictor, s.levels, s.residuals);
    }
}

// Bring shared memory into order: operands without NaN beyond their inputs, the tiles that stay,
// and what the streams remember.
template <class S, class B>
WAVEWN_DEVICE void take_up(Network<S, B>& net) {
    const Arguments& a = net.a;
    net.block.each([&](int thread) {
        const Word zero = {{0, 0, 0, 0}};
        Word* const words = net.template shared<Word>(0);
        for (int i = thread; i < S::shared_bytes / 16; i += S::threads)
            words[i] = i < S::gate_at / 16 ? a.weights[i] : zero;
    });
    net.block.barrier();
    net.block.each([&](int thread) {
        for (int i = thread; i < S::layers; i += S::threads)
            net.template shared<Int64>(S::rings_at)[i] = S::ring_at(i);
        for (int n = 0; n < S::streams; ++n) {
            const float* const from = net.memory_of(n);
            for (int i = thread; i < S::levels_kept; i += S::threads)
                net.levels_of(n)[i] = from[S::level_at + i];
            for (int i = thread; S::order && i < S::residuals_kept; i += S::threads)
                net.residuals_of(n)[i] = from[S::residual_at + i];
            if (thread) continue;
            Voice& v = net.voice(n);
            v.clock = a.clock[net.readable(n)];
            v.level_slot = static_cast<int>(v.clock % S::levels_kept);
            v.residual_slot = static_cast<int>(v.clock % S::residuals_kept);
            v.emphasis = from[S::emphasis_at];
            v.broken_at = -1;
        }
    });
    net.block.barrier();
}

template <class S, class B>
WAVEWN_DEVICE void lay_down(Network<S, B>& net) {
    const Arguments& a = net.a;
    net.block.barrier();
    net.block.each([&](int thread) {
        for (int n = 0; n < S::streams; ++n) {
            if (!net.is_there(n)) continue;
            float* const to = net.memory_of(n);
            for (int i = thread; i < S::levels_kept; i += S::threads)
                to[S::level_at + i] = net.levels_of(n)[i];
            for (int i = thread; S::order && i < S::residuals_kept; i += S::threads)
                to[S::residual_at + i] = net.residuals_of(n)[i];
            if (thread) continue;
            to[S::emphasis_at] = net.voice(n).emphasis;
            a.broken[net.row_of(n)] = net.voice(n).broken_at;
        }
    });
}

// Advance the streams of one block by `a.samples`, a whole number of frames.
template <class S, class B>
WAVEWN_DEVICE void wavenet_samples(B& block, const Arguments& a) {
    Network<S, B> net(block, a);
    take_up(net);
    begin<S, typename Network<S, B>::Gate>(block, net.gate_of(0), 0, net.gate_weights);
    net.read_condition(0, 0);
    net.read_past(0, 0);
    net.write_past();
    net.read_upsampled(0);
    for (int first = 0; first < S::streams; first += S::warps) {
        Served<S, B> s(block, net, first);
        take_predictor(net, s, 0);
        predict<S>(s.some, s.voice, s.predictor, s.levels, s.residuals);
    }
    WAVEWN_ROLL
    while (net.sample < a.samples) {
        block.barrier();
        net.input();
        block.barrier();
        WAVEWN_ROLL
        for (int layer = 0; layer < S::layers; ++layer) {
            net.gate(layer);
            block.barrier();
            net.output(layer);
            if (layer + 1 < S::layers) block.barrier();
        }
        net.answer();
        speak(net);
        net.go_on();
    }
    lay_down(net);
}

}  // namespace wavewn
