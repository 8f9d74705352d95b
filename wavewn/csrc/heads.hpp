// Heads: from the parameters of a sample and its noise to a level, and from levels to audio.
//
// Twin: models/heads.py, `sample`, `decode`, `features`. libm's double functions serve what is asked
// for once a sample; they are the same on every instruction set.

#pragma once

#include <math.h>

#include "network.hpp"
#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {

constexpr float LOG2_E = 1.44269504088896341f;
constexpr float LINEAR_GAIN = 8.0f;
constexpr float SMALLEST_TEMPERATURE = 1e-30f;  // below it the likeliest is taken

// sign(y) ((1 + mu)^|y| - 1) / mu, for y in [-1, 1].
inline float mu_law_expand(const Network& net, float level) {
    const double y = level > 1 ? 1 : level < -1 ? -1 : level;
    return static_cast<float>(copysign(expm1(fabs(y) * net.log_classes) / (net.classes - 1), y));
}

// Index of a choice among `count` logits by inverting their cumulative distribution at `uniform`;
// the first of the greatest at temperature 0.
//
// scratch: [2 * padded(count, 16)], contents on entry do not matter
inline int choose(const float* logits, int count, float uniform, float temperature,
                  float* scratch) {
    const int vectors = padded(count, 16) / 16;
    float* const sums = scratch + 16 * vectors;
    copy(scratch, logits, count);
    for (int i = count; i < 16 * vectors; ++i) scratch[i] = -3e38f;
    Floats highest = load(scratch);
    for (int v = 1; v < vectors; ++v) highest = at_least(highest, load(scratch + 16 * v));
    const float best = greatest(highest);
    if (temperature < SMALLEST_TEMPERATURE) {
        int i = 0;
        while (i + 1 < count && logits[i] != best) ++i;
        return i;
    }
    const Floats sharpness = all(LOG2_E / temperature);
    float total = 0;
    for (int v = 0; v < vectors; ++v) {
        const Floats above = (load(scratch + 16 * v) - all(best)) * sharpness;
        store(scratch + 16 * v, exp2(at_least(above, all(-126.0f))));
        if (v + 1 == vectors)
            for (int i = count; i < 16 * vectors; ++i) scratch[i] = 0;
        sums[v] = sum(load(scratch + 16 * v));
        total += sums[v];
    }
    const float threshold = uniform * total;
    float passed = 0;
    int v = 0;
    while (v + 1 < vectors && passed + sums[v] <= threshold) passed += sums[v++];
    int i = 16 * v;
    while (i + 1 < count && i + 1 < 16 * (v + 1) && (passed += scratch[i]) <= threshold) ++i;
    return i;
}

inline float bounded(float level) { return level > 1 ? 1 : level < -1 ? -1 : level; }

// Draw a level.
inline float sample(const Network& net, const float* parameters, const float* noise,
                    float temperature, float* scratch) {
    if (net.head == HeadKind::mu_law) {
        const int index = choose(parameters, net.classes, noise[0], temperature, scratch);
        return static_cast<float>(index) * static_cast<float>(2.0 / (net.classes - 1)) - 1.0f;
    }
    int component = 0;
    const float* mean = parameters;
    if (net.head == HeadKind::mixture) {
        component = choose(parameters, net.components, noise[0], temperature, scratch);
        mean += net.components;
        ++noise;
    }
    const float log_scale = mean[net.components + component];
    const float least = net.log_scale_min;
    const double exponent = log_scale < least ? least : log_scale;
    const float scale = static_cast<float>(exp(exponent));
    return bounded(mean[component] + temperature * scale * noise[0]);
}

// Means and scales in units of `scale` around `location`: give them in levels.
inline void relocate(const Network& net, float* parameters, float location, float scale,
                     float log_scale) {
    float* const mean = parameters + net.parameter_count - 2 * net.components;
    for (int i = 0; i < net.components; ++i) {
        mean[i] = location + scale * mean[i];
        mean[net.components + i] += log_scale;
    }
}

// The sample that a level stands for, still emphasised.
inline float decode(const Network& net, float level) {
    return net.head == HeadKind::mu_law ? mu_law_expand(net, level) : level;
}

// What the network is fed of a level and its `decoded` sample: [features].
inline void level_features(const Network& net, float level, float decoded, float* features) {
    if (net.head == HeadKind::mu_law) *features++ = level;
    *features = LINEAR_GAIN * decoded;
}

}  // namespace WAVEWN_SET
}  // namespace wavewn
