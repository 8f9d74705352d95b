// Linear and long-term prediction from the mel: predictors of a frame, predictions of a sample.
//
// Twin: nn/linear_prediction.py, which has the equations.

#pragma once

#include <math.h>

#include "heads.hpp"
#include "network.hpp"
#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {

constexpr float LOG_SCALE = -5.0f;
constexpr float SMALLEST_SCALE = 1.0f / 16384;
constexpr float SHARPNESS = 4.0f;
constexpr int BLUR = 7;
constexpr float PLAIN_GAIN = 0.25f, LOG_GAIN = 2.0f;

// Read the projection of a frame, [order + 1], into coefficients, the oldest sample's first, and
// the scale of the residual.
inline void make_predictor(const Network& net, Lane& lane, const float* projected) {
    float* const a = lane.coefficients;  // newest first until the end
    for (int i = 0; i < net.order; ++i) {
        const float reflection = static_cast<float>(tanh(0.5 * projected[i]));
        for (int j = 0; 2 * j < i; ++j) {
            const float front = a[j], back = a[i - 1 - j];
            a[j] = front - reflection * back;
            a[i - 1 - j] = back - reflection * front;
        }
        a[i] = reflection;
    }
    for (int j = 0; 2 * j < net.order - 1; ++j) {
        const float front = a[j];
        a[j] = a[net.order - 1 - j];
        a[net.order - 1 - j] = front;
    }
    for (int i = net.order; i < padded(net.order, 16); ++i) a[i] = 0;
    const double grown = exp(static_cast<double>(projected[net.order] + LOG_SCALE));
    lane.scale = SMALLEST_SCALE + static_cast<float>(grown);
    lane.log_scale = static_cast<float>(log(static_cast<double>(lane.scale)));
}

// Read the projection of a frame, [lags + 1], into the weights of the lags, the longest first, and
// the gain.
inline void make_lags(const Network& net, Lane& lane, float* projected) {
    const int lags = net.longest - net.shortest + 1, vectors = padded(lags, 16) / 16;
    lane.gain = static_cast<float>(0.5 + 0.5 * tanh(static_cast<double>(projected[lags])));
    float greatest = projected[0];
    for (int i = 1; i < lags; ++i) greatest = projected[i] > greatest ? projected[i] : greatest;
    float total = 0;
    for (int v = 0; v < vectors; ++v) {
        const Floats above = (load(projected + 16 * v) - all(greatest)) * all(SHARPNESS);
        store(projected + 16 * v, exp2(clamp(above * all(LOG2_E), -126.0f, 0.0f)));
    }
    for (int i = lags; i < 16 * vectors; ++i) projected[i] = 0;
    for (int v = 0; v < vectors; ++v) total += sum(load(projected + 16 * v));
    for (int i = 0; i < lags; ++i) {
        float near = 0;
        for (int j = i - BLUR / 2; j <= i + BLUR / 2; ++j)
            if (j >= 0 && j < lags) near += projected[j];
        lane.lag_weights[i] = near / total / BLUR;
    }
    for (int i = lags; i < 16 * vectors; ++i) lane.lag_weights[i] = 0;
}

// sum_i a_i b_i over `count` numbers, a padded with zeros to whole vectors; b is finite beyond.
inline float dot(const float* a, const float* b, int count) {
    Floats y = load(a) * load(b);
    for (int i = 16; i < count; i += 16) y = y + load(a + i) * load(b + i);
    return sum(y);
}

// What the network is fed of a residual: [2].
inline void residual_features(float residual, float* features) {
    features[0] = PLAIN_GAIN * residual;
    const double logarithm = copysign(log1p(fabs(static_cast<double>(residual))), residual);
    features[1] = LOG_GAIN * static_cast<float>(logarithm);
}

}  // namespace WAVEWN_SET
}  // namespace wavewn
