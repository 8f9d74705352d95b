// From the head's parameters and the noise to a level, and from levels to what is heard and fed
// back. A warp serves a stream.
//
// Twins: models/heads.py, `sample`, `decode`, `features`; nn/linear_prediction.py; csrc/heads.hpp
// and csrc/prediction.hpp.

#pragma once

#include "shape.hpp"

namespace wavewn {

constexpr float LOG2_E = 1.44269504088896341f;
constexpr float LINEAR_GAIN = 8.0f;
constexpr float PLAIN_GAIN = 0.25f, LOG_GAIN = 2.0f;
constexpr float SMALLEST_TEMPERATURE = 1e-30f;  // below it the likeliest is taken

// What a block knows of a stream beside its operands, in shared memory.
struct alignas(16) Voice {
    float features[3];  // of the next sample
    float prediction;   // of the sample at hand by the short predictor,
    float location;     // and by both
    float emphasis;     // last output of the de-emphasis
    int level_slot, residual_slot;  // where the sample at hand goes
    int unsound;        // something within the network is not finite
    Int64 clock;        // of the sample at hand
    Int64 broken_at;    // first bad sample of the call, where the stream stopped, or -1
};
static_assert(sizeof(Voice) == 64, "see Shape::voices_at");

WAVEWN_DEVICE float bounded(float level) { return level > 1 ? 1 : level < -1 ? -1 : level; }

// sign(y) ((1 + mu)^|y| - 1) / mu, for y in [-1, 1]. The exponent is made of two floats: one would
// cost a bit or two of the result.
WAVEWN_DEVICE float mu_law_expand(float level) {
    constexpr float logarithm = static_cast<float>(WAVEWN_LOG_CLASSES);
    constexpr float rest = static_cast<float>(WAVEWN_LOG_CLASSES - static_cast<double>(logarithm));
    const float y = fabsf(bounded(level));
    const float exponent = rounded_product(y, logarithm);
    const float lost = fused(y, logarithm, -exponent) + y * rest;
    const float grown = expm1f(exponent);
    const float size = (grown + lost * (grown + 1.0f)) / static_cast<float>(WAVEWN_CLASSES - 1);
    return level < 0 ? -size : size;
}

// The sample that a level stands for, still emphasised.
template <class S>
WAVEWN_DEVICE float decoded(float level) {
    if constexpr (S::head == MU_LAW) return mu_law_expand(level);
    return level;
}

// The first warps of a block. The others come along where a warp works together, as their garbage
// reaches nobody.
template <class B>
struct Some {
    B& block;
    int warps;

    template <class F>
    WAVEWN_DEVICE void each(F f) {
        block.each([&](int thread) {
            if (thread < warps * LANES) f(thread);
        });
    }
    WAVEWN_DEVICE void together() { block.together(); }
    template <class T>
    WAVEWN_DEVICE Own<T> across(const Own<T>& x, int mask) {
        return block.across(x, mask);
    }
    template <class T>
    WAVEWN_DEVICE Own<T> below(const Own<T>& x, int count) {
        return block.below(x, count);
    }
};

// Sum, or the greatest, over a warp; every lane has it.
template <class B>
WAVEWN_DEVICE void sum_up(B& block, Own<float>& x) {
    WAVEWN_UNROLL
    for (int mask = LANES / 2; mask; mask /= 2) {
        const Own<float> other = block.across(x, mask);
        block.each([&](int thread) { x[thread] += other[thread]; });
    }
}
template <class B>
WAVEWN_DEVICE void take_greatest(B& block, Own<float>& x) {
    WAVEWN_UNROLL
    for (int mask = LANES / 2; mask; mask /= 2) {
        const Own<float> other = block.across(x, mask);
        block.each([&](int thread) {
            if (other[thread] > x[thread]) x[thread] = other[thread];
        });
    }
}
template <class B>
WAVEWN_DEVICE void take_least(B& block, Own<int>& x) {
    WAVEWN_UNROLL
    for (int mask = LANES / 2; mask; mask /= 2) {
        const Own<int> other = block.across(x, mask);
        block.each([&](int thread) { x[thread] = least(x[thread], other[thread]); });
    }
}

// Index of a choice among COUNT logits by inverting their cumulative distribution at `uniform`; the
// first of the greatest at temperature 0. A lane has COUNT / 32 neighbouring classes: it sums its
// own, the warp sums the lanes', and the lane in which the threshold falls looks closer.
//
// logits: each thread's stream has its own. index: every lane of the warp has it.
template <int COUNT, class B>
WAVEWN_DEVICE void choose(B& block, const Own<float*>& logits, const Own<float>& uniform,
                          float temperature, Own<int>& index) {
    constexpr int own = (COUNT + LANES - 1) / LANES;
    constexpr float nothing = -3e38f;
    Own<float> weight[own], best, sum, upto;
    block.each([&](int thread) {
        const int first = thread % LANES * own;
        best[thread] = nothing;
        WAVEWN_UNROLL
        for (int n = 0; n < own; ++n) {
            const bool is_there = COUNT % LANES == 0 || first + n < COUNT;
            const float logit = is_there ? logits[thread][first + n] : nothing;
            if (logit > best[thread]) best[thread] = logit;
            weight[n][thread] = logit;
        }
    });
    take_greatest(block, best);
    if (temperature < SMALLEST_TEMPERATURE) {
        block.each([&](int thread) {
            index[thread] = COUNT - 1;
            WAVEWN_UNROLL
            for (int n = own - 1; n >= 0; --n)
                if (weight[n][thread] == best[thread]) index[thread] = thread % LANES * own + n;
        });
        take_least(block, index);
        return;
    }
    block.each([&](int thread) {
        const float scale = LOG2_E / temperature;
        sum[thread] = 0;
        WAVEWN_UNROLL
        for (int n = 0; n < own; ++n) {
            weight[n][thread] = exp2_of((weight[n][thread] - best[thread]) * scale);
            sum[thread] += weight[n][thread];
        }
        upto[thread] = sum[thread];
    });
    WAVEWN_UNROLL
    for (int n = 1; n < LANES; n *= 2) {
        const Own<float> lower = block.below(upto, n);
        block.each([&](int thread) {
            if (thread % LANES >= n) upto[thread] += lower[thread];
        });
    }
    const Own<float> before = block.below(upto, 1);
    block.each([&](int thread) { sum[thread] = upto[thread]; });
    take_greatest(block, sum);  // positive numbers: the last lane's is the total
    block.each([&](int thread) {
        const int lane = thread % LANES, first = lane * own;
        const float threshold = uniform[thread] * sum[thread];
        index[thread] = COUNT - 1;
        if (upto[thread] <= threshold) return;
        float passed = lane ? before[thread] : 0.0f;
        int skipped = 0;
        WAVEWN_UNROLL
        for (int n = 0; n + 1 < own; ++n) {
            passed += weight[n][thread];
            skipped += passed <= threshold;
        }
        index[thread] = least(first + skipped, COUNT - 1);
    });
    take_least(block, index);
}

// Predictions of the sample at hand, and what the network is fed before it.
//
// predictor: of the frame, [order coefficients, lags, scale, log scale, gain]; levels and
// residuals: the stream's rings.
template <class S, class B>
WAVEWN_DEVICE void predict(B& block, const Own<Voice*>& voice, const Own<float*>& predictor,
                           const Own<float*>& levels, const Own<float*>& residuals) {
    if constexpr (S::order == 0) {
        block.each([&](int thread) {
            if (thread % LANES) return;
            Voice& v = *voice[thread];
            const float level = levels[thread][0];
            float* to = v.features;
            if constexpr (S::head == MU_LAW) *to++ = level;
            *to = LINEAR_GAIN * decoded<S>(level);
        });
    } else {
        Own<float> near, far;
        block.each([&](int thread) {
            const Voice& v = *voice[thread];
            near[thread] = far[thread] = 0;
            for (int i = thread % LANES; i < S::order; i += LANES) {
                const int slot = v.level_slot + i;
                near[thread] += predictor[thread][i] *
                                levels[thread][slot < S::order ? slot : slot - S::order];
            }
            for (int i = thread % LANES; i < S::lags; i += LANES) {
                const int slot = v.residual_slot + i;
                far[thread] += predictor[thread][S::order + i] *
                               residuals[thread][slot < S::longest ? slot : slot - S::longest];
            }
        });
        sum_up(block, near);
        if constexpr (S::lags > 0) sum_up(block, far);
        block.each([&](int thread) {
            if (thread % LANES) return;
            Voice& v = *voice[thread];
            const float* const frame = predictor[thread] + S::order + S::lags;
            const int newest = v.residual_slot ? v.residual_slot - 1 : S::residuals_kept - 1;
            const float residual = residuals[thread][newest];
            const float logarithm = log1pf(fabsf(residual));
            v.features[0] = PLAIN_GAIN * residual;
            v.features[1] = LOG_GAIN * (residual < 0 ? -logarithm : logarithm);
            v.features[2] = far[thread];
            v.prediction = near[thread];
            v.location = S::lags ? near[thread] + frame[0] * frame[2] * far[thread] : near[thread];
        });
    }
    block.together();
}

// Draw a level, or take the forced one; every lane of the stream's warp has it.
//
// answer: parameters of the head, in levels.
template <class S, class B>
WAVEWN_DEVICE void draw(B& block, const Own<float*>& answer, const Own<const float*>& noise,
                        float temperature, float log_scale_min, Own<float>& level) {
    Own<int> index;
    if constexpr (S::head != GAUSSIAN) {
        Own<float> uniform;
        block.each([&](int thread) { uniform[thread] = noise[thread][0]; });
        choose<S::head == MU_LAW ? S::parameters : S::components>(block, answer, uniform,
                                                                  temperature, index);
    }
    block.each([&](int thread) {
        if constexpr (S::head == MU_LAW) {
            constexpr float step = static_cast<float>(2.0 / (WAVEWN_CLASSES - 1));
            const float scaled = rounded_product(static_cast<float>(index[thread]), step);
            level[thread] = rounded_sum(scaled, -1.0f);
        } else {
            const int component = S::head == MIXTURE ? index[thread] : 0;
            const float* const mean = answer[thread] + S::parameters - 2 * S::components;
            const float log_scale = mean[S::components + component];
            const float scale = expf(log_scale < log_scale_min ? log_scale_min : log_scale);
            const float spread = rounded_product(temperature * scale, noise[thread][S::draws - 1]);
            level[thread] = bounded(rounded_sum(mean[component], spread));
        }
    });
}

}  // namespace wavewn
