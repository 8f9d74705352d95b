// The network: samples and layers, and the call that goes through frames and samples. Compiled once
// for each instruction set.
//
// A call goes block by block of mel frames: all of them through the mel network, then frame by
// frame through the predictors and the upsampling, then sample by sample through the stack. Nothing
// here depends on chunks or on company.
//
// Twin: engine/workspace.py, `generate`, and engine/reference.py.

#pragma once

#include <sched.h>

#include "breath.hpp"
#include "frames.hpp"
#include "gates.hpp"
#include "heads.hpp"
#include "network.hpp"
#include "prediction.hpp"
#include "products.hpp"
#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {

constexpr int LEAST_SHARING = 4;  // lanes that share a pass over all taps; fewer add older taps early
constexpr int EARLY_LINES = 16;   // of cache, that each sixteen of z call for

// Turn `count` inputs into an operand; up to 15 inputs more are read and written.
template <class P>
INLINE void prepare(const Product& p, const float* from, int count, typename P::Input* to) {
    for (int i = 0; i < count; i += 16) P::write(p, load(from + i), i, to);
}

// Groups of inputs that are the older taps of a gate.
template <class G>
INLINE int older_groups(const Network& net) {
    return (net.taps - 1) * (padded(net.residual, G::GROUP) / G::GROUP);
}

// What becomes of a gate, sixteen of f and sixteen of g: z, an operand of `out`. While exponentials
// keep the processor busy, weights of `out` come nearer, once for all lanes.
template <class P>
struct Open {
    struct Target {
        const Product* out;
        typename P::Input* z;
    };
    const Target* target;
    template <int V>
    INLINE void operator()(int n, int first, const Floats (&result)[V]) const {
#pragma GCC unroll 4
        for (int v = 0; v + 1 < V; v += 2)
            if (n == 0) fetch(first + v);
        if constexpr (P::WHOLE) {
#pragma GCC unroll 4
            for (int v = 0; v + 3 < V; v += 4)
                open_gates(result[v], result[v + 1], result[v + 2], result[v + 3], P::RAISE,
                           target[n].z + 8 * (first + v));
            if constexpr (V % 4 == 2)
                open_gate(result[V - 2], result[V - 1], P::RAISE,
                          target[n].z + 8 * (first + V - 2));
        } else {
#pragma GCC unroll 4
            for (int v = 0; v + 1 < V; v += 2)
                P::write(*target[n].out, activated(result[v], result[v + 1]), 8 * (first + v),
                         target[n].z);
        }
    }
    INLINE void fetch(int vector) const {
        const auto* const weights = static_cast<const char*>(target->out->weights);
#pragma GCC unroll 16
        for (int line = 0; line < EARLY_LINES; ++line)
            __builtin_prefetch(weights + 64 * (vector / 2 * EARLY_LINES + line));
    }
};

// The condition of layer `index` at sample t of the frame whose gates are row `row`; it may be made
// in `gate`.
INLINE const float* condition(const Network& net, const Lane& lane, int index, int row, int t,
                              float* gate) {
    const int width = net.gate_width;
    const std::int64_t stride = std::int64_t(net.layer_count) * width;
    const float* const found = lane.gates + index * width;
    if (net.upsampling == Upsampling::nearest) return found + row * stride;
    if (net.upsampling == Upsampling::transposed) return found + t % SAMPLES * stride;
    const float* const now = found + row * stride;
    const float* const before = now - stride;
    const Floats weight = all(net.ramp[t]);
    for (int i = 0; i < width; i += 16)
        store(gate + i, load(before + i) + (load(now + i) - load(before + i)) * weight);
    return gate;
}

// Turn the older taps of a gate into its operand, oldest first; `slot`: where the oldest one lies.
template <class G>
INLINE void prepare_older(const Network& net, const Layer& layer, const Lane& lane, int slot,
                          typename G::Input* taps) {
    for (int k = 0; k + 1 < net.taps; ++k) {
        prepare<G>(layer.gate, lane.state + layer.ring + std::int64_t(slot) * net.residual,
                   net.residual, taps + k * padded(net.residual, G::GROUP));
        slot += layer.dilation;
        if (slot >= layer.rows) slot -= layer.rows;
    }
}

// Call the oldest tap of a layer: with many lanes the rings are more than the second cache holds,
// and their rows are too many for the processor to see them coming.
INLINE void call_ring(const Network& net, const Layer& layer, const Lane& lane, int slot) {
    const float* const from = lane.state + layer.ring + std::int64_t(slot) * net.residual;
    for (int i = 0; i < net.residual; i += 16) __builtin_prefetch(from + i);
}

// The older taps of samples t, t + 1, ... of a frame, as many as the layer does at once: one pass
// over their weights, and no sample waits for it.
//
//     kept = W [x(t - (K - 1) d), ..., x(t - d)],   in floats with the condition before it
//
// All of it has been heard, as no more than d samples are done at once. The sums go on where they
// stopped, so they have the bits that one pass would give.
//
// 2026-11-22, one core of Zen 4, one stream, samples a second in turns with the kernel without this:
// float32 of S, M and L 1.08, 1.08 and 1.17 times as many; int8 of M and L 1.07 and 1.08 times.
template <class G>
__attribute__((noinline)) void add_older(const Network& net, int index, Lane& lane, int row, int t,
                                         int side) {
    const Layer& layer = net.layers[index];
    const int left = net.hop - t;
    const int samples = left < layer.at_once ? left : layer.at_once;
    const typename G::Input* operand[SAMPLES];
    const float* gate[SAMPLES];
    float* kept[SAMPLES];
    int slot = lane.slots[index];
    for (int i = 0; i < samples; ++i) {
        auto* const taps = reinterpret_cast<typename G::Input*>(lane.bench[side].operand +
                                                                i * net.operand_width);
        prepare_older<G>(net, layer, lane, slot, taps);
        if (++slot == layer.rows) slot = 0;
        operand[i] = taps;
        float* const room = lane.bench[side].gate + i * net.gate_width;
        gate[i] = G::INIT_FIRST ? condition(net, lane, index, row, t + i, room) : room;
        kept[i] = lane.kept + (std::int64_t(index) * SAMPLES + i) * net.kept_width;
    }
    multiply_first<G>(layer.gate, operand, gate, kept, older_groups<G>(net), samples);
}

// One gated layer of all lanes.
//
//     a    = condition + W [x(t - (K - 1) d), ..., x(t - d), x(t)]
//     z    = tanh(a[:R]) * sigmoid(a[R:])
//     x    = x + W_res z + b_res,    skip = skip + W_skip z + b_skip
//
// in/out: carry [R + S], the ring; lane.slots goes on by one
//
// G: precision of the gate, P: of the output
template <class G, class P>
INLINE void layer_step(const Network& net, int index, Lane* lanes, int count, int row, int t,
                       int side) {
    const Layer& layer = net.layers[index];
    const int R = net.residual, tap_width = padded(R, P::GROUP);
    const bool early = layer.at_once > 1 && count < LEAST_SHARING;
    const bool last = index + 1 == net.layer_count;
    const typename G::Input* operand[MOST_LANES];
    const float* gate[MOST_LANES];
    typename Open<P>::Target opened[MOST_LANES];
    const typename P::Input* z[MOST_LANES];
    const float* bias[MOST_LANES];
    float* out[MOST_LANES];
    float* kept[MOST_LANES];
    const int next = last ? 0 : index + 1;
    for (int n = 0; n < count; ++n) {
        Lane& lane = lanes[n];
        if (!early) call_ring(net, net.layers[next], lane, lane.slots[next]);
        auto& bench = lane.bench[side];
        auto* const taps = reinterpret_cast<typename G::Input*>(bench.operand);
        float* const ring = lane.state + layer.ring;
        const int place = t & (layer.at_once - 1);
        if (!early)
            prepare_older<G>(net, layer, lane, lane.slots[index], taps);
        else if (place == 0)
            add_older<G>(net, index, lane, row, t, side);
        kept[n] = lane.kept + (std::int64_t(index) * SAMPLES + place) * net.kept_width;
        prepare<G>(layer.gate, lane.carry, R, taps + (net.taps - 1) * tap_width);
        if (layer.rows) {
            copy(ring + std::int64_t(lane.slots[index]) * R, lane.carry, R);
            if (++lane.slots[index] == layer.rows) lane.slots[index] = 0;
        }
        operand[n] = taps;
        gate[n] = early && G::INIT_FIRST ? kept[n]
                                         : condition(net, lane, index, row, t, bench.gate);
        z[n] = reinterpret_cast<typename P::Input*>(bench.z);
        opened[n] = {&layer.out, reinterpret_cast<typename P::Input*>(bench.z)};
        bias[n] = layer.out.bias;
        out[n] = lane.carry + (last ? R : 0);
    }
    if (early)
        multiply_rest<G, Open<P>>(layer.gate, operand, gate, opened, kept, older_groups<G>(net),
                                  count);
    else
        multiply<G, Open<P>>(layer.gate, operand, gate, opened, count);
    multiply<P, Add>(layer.out, z, bias, out, count);
}

// Layers `begin` to `end` - 1; a lonely lane has code of its own.
template <class P>
void layer_steps(const Network& net, int begin, int end, Lane* lanes, int count, int row, int t,
                 int side) {
    for (int i = begin; i < end; ++i)
        if (net.layers[i].gate.is_fine)
            layer_step<Fine<P>, P>(net, i, lanes, count, row, t, side);
        else if (count == 1)
            layer_step<P, P>(net, i, lanes, 1, row, t, side);
        else
            layer_step<P, P>(net, i, lanes, count, row, t, side);
}

// From the sums of skips to the parameters of the head.
template <class U>
void answer(const Network& net, Lane* lanes, int count, int side) {
    const typename U::Input* operand[MOST_LANES];
    float* y[MOST_LANES];
    const float* bias[MOST_LANES];
    for (int n = 0; n < count; ++n) {
        Lane& lane = lanes[n];
        auto* const to = reinterpret_cast<typename U::Input*>(lane.bench[side].operand);
        float* const skip = lane.hidden;  // not in use yet
        for (int i = 0; i < net.skip; ++i) skip[i] = lane.carry[net.residual + i];
        rectify(skip, net.skip);
        prepare<U>(net.head_hidden, skip, net.skip, to);
        operand[n] = to;
        y[n] = lane.hidden;
        bias[n] = net.head_hidden.bias;
    }
    multiply<U, Put>(net.head_hidden, operand, bias, y, count);
    for (int n = 0; n < count; ++n) {
        Lane& lane = lanes[n];
        rectify(lane.hidden, net.hidden);
        prepare<U>(net.head_output, lane.hidden, net.hidden,
                   reinterpret_cast<typename U::Input*>(lane.bench[side].operand));
        y[n] = lane.answer;
        bias[n] = net.head_output.bias;
    }
    multiply<U, Put>(net.head_output, operand, bias, y, count);
}

// Look until `*number` is no longer `old`; return it.
inline std::int64_t await(const std::int64_t* number, std::int64_t old) {
    for (int i = 0;; ++i) {
        const std::int64_t found = __atomic_load_n(number, __ATOMIC_ACQUIRE);
        if (found != old) return found;
        if (i < PATIENCE)
            breathe();
        else
            sched_yield();
    }
}

// See `Kernel::follow`.
template <class P, class U>
void follow(const Network& net, Lane* lanes, int count, Relay* relay) {
    for (std::int64_t seen = 0; (seen = await(&relay->there, seen)) >= 0;) {
        layer_steps<P>(net, relay->cut, net.layer_count, lanes, count, relay->row, relay->t, 1);
        answer<U>(net, lanes, count, 1);
        __atomic_store_n(&relay->back, seen, __ATOMIC_RELEASE);
    }
}

// All layers and the head's parameters of a sample, alone or with a follower.
template <class P, class U>
void stack_step(const Network& net, Lane* lanes, int count, int row, int t, Relay* relay) {
    const int mine = relay == nullptr ? net.layer_count : relay->cut;
    layer_steps<P>(net, 0, mine, lanes, count, row, t, 0);
    if (relay == nullptr) return answer<U>(net, lanes, count, 0);
    const std::int64_t before = relay->back;
    relay->row = row;
    relay->t = t;
    __atomic_store_n(&relay->there, before + 1, __ATOMIC_RELEASE);
    await(&relay->back, before);
}

// One sample of all lanes: level t of the frame whose gates are row `row`.
template <class P, class U, class F>
void sample_step(const Network& net, Lane* lanes, int count, int row, int t, Relay* relay) {
    const int past = levels_kept(net), longest = residuals_kept(net);
    const float* features[MOST_LANES];
    float* carry[MOST_LANES];
    float location[MOST_LANES], prediction[MOST_LANES];
    for (int n = 0; n < count; ++n) {
        Lane& lane = lanes[n];
        if (net.order) {
            residual_features(lane.residuals[t + longest - 1], lane.features);
            location[n] = prediction[n] = dot(lane.coefficients, lane.levels + t, net.order);
            if (net.longest) {
                const int lags = net.longest - net.shortest + 1;
                const float repeated = dot(lane.lag_weights, lane.residuals + t, lags);
                lane.features[2] = repeated;
                location[n] += lane.scale * lane.gain * repeated;
            }
        } else {
            level_features(net, lane.levels[t + past - 1], lane.decoded, lane.features);
        }
        features[n] = lane.features;
        carry[n] = lane.carry;
    }
    affine<F>(net.input, features, carry, count);
    for (int n = 0; n < count; ++n)  // with what pads the vectors: a sum of zeros, else of NaN
        for (int i = 0; i <= net.skip + 15; i += 16)
            store(lanes[n].carry + net.residual + i, all(0.0f));
    stack_step<P, U>(net, lanes, count, row, t, relay);
    for (int n = 0; n < count; ++n) {
        Lane& lane = lanes[n];
        if (lane.broken) continue;
        if (net.order) relocate(net, lane.answer, location[n], lane.scale, lane.log_scale);
        if (!finite(lane.answer, net.parameter_count) ||
            !finite(lane.carry, net.residual + net.skip)) {
            lane.broken = true;
            continue;
        }
        if (lane.parameters != nullptr)
            copy(lane.parameters + lane.samples * net.parameter_count, lane.answer,
                 net.parameter_count);
        const float level = lane.forced != nullptr
                                ? lane.forced[lane.samples]
                                : sample(net, lane.answer, lane.noise + lane.samples * net.draws,
                                         lane.temperature, lane.scratch);
        lane.levels[past + t] = level;
        if (net.order) lane.residuals[longest + t] = (level - prediction[n]) / lane.scale;
        float* const emphasis = lane.state + net.emphasis;
        const float carried = *emphasis * net.pre_emphasis;
        lane.decoded = decode(net, level);
        *emphasis = lane.decoded + carried;
        if (lane.audio != nullptr) lane.audio[lane.samples] = bounded(*emphasis);
        ++lane.samples;
    }
}

// All samples of a frame, `row` of what was heard.
template <class P, class U, class F>
void frame_step(const Network& net, Lane* lanes, int count, int row, Relay* relay) {
    for (int n = 0; n < count; ++n) predict_frame<F>(net, lanes[n], row);
    const bool learned = net.upsampling == Upsampling::transposed;
    if (learned) spread_frame<F>(net, lanes, count, row);
    for (int t = 0; t < net.hop; ++t) {
        if (learned && t % SAMPLES == 0)
            project_samples<F>(net, lanes, count, t, net.hop - t < SAMPLES ? net.hop - t : SAMPLES);
        sample_step<P, U, F>(net, lanes, count, row, t, relay);
    }
    const int past = levels_kept(net), longest = residuals_kept(net);
    for (int n = 0; n < count; ++n) {
        Lane& lane = lanes[n];
        std::memmove(lane.levels, lane.levels + net.hop, sizeof(float) * std::size_t(past));
        if (net.order)
            std::memmove(lane.residuals, lane.residuals + net.hop,
                         sizeof(float) * std::size_t(longest));
        lane.clock += net.hop;
    }
}

// See `Kernel::lead`. P: signed inputs, U: rectified inputs, F: what stays in float32.
template <class P, class U, class F>
void lead(const Network& net, Lane* lanes, int count, int frames, Relay* relay) {
    constexpr bool in_tiles = TILES && P::IN_TILES;
    if (in_tiles && count >= LEAST_TILE_ROWS) open_tiles(count);
    for (int n = 0; n < count; ++n) take_up(net, lanes[n]);
    const bool learned = net.upsampling == Upsampling::transposed;
    if (net.upsampling == Upsampling::linear) project_frames<F>(net, lanes, count, 0, 1);
    for (int begin = 0; begin < frames; begin += FRAMES) {
        const int block = frames - begin < FRAMES ? frames - begin : FRAMES;
        hear<F>(net, lanes, count, begin, block);
        int early = 0;  // frames that only look ahead
        while (early < block && lanes[0].ahead < net.look_ahead) {
            for (int n = 0; n < count; ++n) ++lanes[n].ahead;
            ++early;
        }
        const int due = block - early;
        if (due == 0) continue;
        for (int n = 0; n < count && early > 0; ++n)
            std::memmove(lanes[n].heard + net.channels,
                         lanes[n].heard + (1 + early) * net.channels,
                         sizeof(float) * std::size_t(due) * std::size_t(net.channels));
        if (!learned) project_frames<F>(net, lanes, count, 1, due);
        for (int f = 1; f <= due; ++f) frame_step<P, U, F>(net, lanes, count, f, relay);
        const int width = net.layer_count * net.gate_width;
        for (int n = 0; n < count; ++n) {
            copy(lanes[n].heard, lanes[n].heard + due * net.channels, net.channels);
            if (net.upsampling == Upsampling::linear)
                copy(lanes[n].gates, lanes[n].gates + std::int64_t(due) * width, width);
        }
    }
    for (int n = 0; n < count; ++n) lay_down(net, lanes[n]);
    if (in_tiles && count >= LEAST_TILE_ROWS) close_tiles();
    if (relay != nullptr) __atomic_store_n(&relay->there, -1, __ATOMIC_RELEASE);
}

extern const Kernel kernels[3] = {
    {lead<Fused, Fused, Fused>, follow<Fused, Fused>},
    {lead<Half, Half, Fused>, follow<Half, Half>},
    {lead<Eight, EightUnsigned, Plain>, follow<Eight, EightUnsigned>},
};

}  // namespace WAVEWN_SET
}  // namespace wavewn
