// What happens once a frame: the mel network, the predictors, the gates' conditions.
//
// All of it is float32, and whatever is made for several lanes or frames at once goes through
// `multiply`, which gives every row the bits that it would have alone.
//
// Twin: engine/workspace.py, `load`, `store`, `hear`, `condition`.

#pragma once

#include "heads.hpp"
#include "network.hpp"
#include "prediction.hpp"
#include "products.hpp"
#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {

// y = x @ matrix + bias for rows of floats.
template <class F>
void affine(const Product& p, const float* const* x, float* const* y, int rows) {
    const float* bias[MOST_LANES * SAMPLES];
    for (int n = 0; n < rows; ++n) bias[n] = p.bias;
    multiply<F, Put>(p, x, bias, y, rows);
}

INLINE void rectify(float* x, int count) {
    for (int i = 0; i < count; i += 16) store(x + i, at_least(load(x + i), all(0.0f)));
}

// Whether `count` numbers are finite; x is padded with finite ones to whole vectors.
INLINE bool finite(const float* x, int count) {
    Floats zero = all(0.0f);
    for (int i = 0; i < count; i += 16) zero = zero + load(x + i) * all(0.0f);
    return sum(zero) == 0;
}

// Rings of a state row are read oldest row first: row `number` lies in slot number mod rows.
inline void read_ring(const float* ring, int rows, int width, std::int64_t number, float* to) {
    for (int i = 0; i < rows; ++i)
        copy(to + std::int64_t(i) * width, ring + (number + i) % rows * width, width);
}
inline void write_ring(float* ring, int rows, int width, std::int64_t number, const float* from) {
    for (int i = 0; i < rows; ++i)
        copy(ring + (number + i) % rows * width, from + std::int64_t(i) * width, width);
}

inline int width_of_mel(const Network& net, int layer) {
    return layer ? net.channels : net.bands;
}

// How many levels and residuals a stream remembers.
inline int levels_kept(const Network& net) { return net.order ? net.order : 1; }
inline int residuals_kept(const Network& net) { return net.longest ? net.longest : 1; }

inline void take_up(const Network& net, Lane& lane) {
    const std::int64_t number = lane.clock / net.hop + lane.ahead;
    for (int i = 0; i < net.mel_count; ++i)
        read_ring(lane.state + net.mel_rings[i], net.mel_taps - 1, width_of_mel(net, i), number,
                  lane.mel_rows[i]);
    copy(lane.heard, lane.state + net.condition, net.channels);
    const int past = levels_kept(net);
    for (int i = 0; i < past + net.hop + 16; ++i) lane.levels[i] = 0;
    read_ring(lane.state + net.level, past, 1, lane.clock, lane.levels);
    lane.decoded = decode(net, lane.levels[past - 1]);
    if (net.order) {
        const int longest = residuals_kept(net);
        for (int i = 0; i < longest + net.hop + 16; ++i) lane.residuals[i] = 0;
        read_ring(lane.state + net.residual_ring, longest, 1, lane.clock, lane.residuals);
    }
    for (int i = 0; i < net.layer_count; ++i) {
        const int rows = net.layers[i].rows;
        lane.slots[i] = rows ? static_cast<int>(lane.clock % rows) : 0;
    }
}

inline void lay_down(const Network& net, Lane& lane) {
    const std::int64_t number = lane.clock / net.hop + lane.ahead;
    for (int i = 0; i < net.mel_count; ++i)
        write_ring(lane.state + net.mel_rings[i], net.mel_taps - 1, width_of_mel(net, i), number,
                   lane.mel_rows[i]);
    copy(lane.state + net.condition, lane.heard, net.channels);
    write_ring(lane.state + net.level, levels_kept(net), 1, lane.clock, lane.levels);
    if (net.order)
        write_ring(lane.state + net.residual_ring, residuals_kept(net), 1, lane.clock,
                   lane.residuals);
    lane.state[net.ahead] = static_cast<float>(lane.ahead);
}

// Send frames `first` and on through the mel network: heard[1 ..] of each lane.
template <class F>
void hear(const Network& net, Lane* lanes, int count, int first, int frames) {
    const float* x[MOST_LANES * FRAMES];
    float* y[MOST_LANES * FRAMES];
    const int past = net.mel_taps - 1;
    for (int i = 0; i < net.mel_count; ++i) {
        const Product& p = net.mel[i];
        const int width = width_of_mel(net, i);
        for (int n = 0; n < count; ++n) {
            Lane& lane = lanes[n];
            for (int f = 0; f < frames; ++f) {
                float* const row = lane.mel_rows[i] + (past + f) * width;
                if (i == 0)
                    for (int b = 0; b < width; ++b)
                        row[b] = (lane.mel[b * lane.mel_stride + first + f] - net.mel_silence) /
                                 net.mel_scale;
                else
                    std::memcpy(row, lane.heard + (1 + f) * width,
                                sizeof(float) * std::size_t(width));
                x[n * frames + f] = lane.mel_rows[i] + f * width;
                y[n * frames + f] = lane.wide + f * 16 * p.vectors;
            }
        }
        affine<F>(p, x, y, count * frames);
        for (int n = 0; n < count; ++n) {
            Lane& lane = lanes[n];
            std::memmove(lane.mel_rows[i], lane.mel_rows[i] + frames * width,
                         sizeof(float) * std::size_t(past) * std::size_t(width));
            for (int f = 0; f < frames; ++f) {
                rectify(y[n * frames + f], net.channels);
                std::memcpy(lane.heard + (1 + f) * net.channels, y[n * frames + f],
                            sizeof(float) * std::size_t(net.channels));
            }
        }
    }
    if (net.speakers != nullptr)
        for (int n = 0; n < count; ++n)
            for (int f = 0; f < frames; ++f)
                for (int c = 0; c < net.channels; ++c)
                    lanes[n].heard[(1 + f) * net.channels + c] +=
                        net.speakers[std::int64_t(lanes[n].speaker) * net.channels + c];
}

// Make the predictors of a frame from what was heard, `row` of it.
template <class F>
void predict_frame(const Network& net, Lane& lane, int row) {
    const float* const x = lane.heard + row * net.channels;
    if (net.order) {
        affine<F>(net.predictor, &x, &lane.wide, 1);
        make_predictor(net, lane, lane.wide);
    }
    if (net.longest) {
        affine<F>(net.pitch, &x, &lane.wide, 1);
        make_lags(net, lane, lane.wide);
    }
}

// Project conditions into the gates of all layers: `rows` of them for each lane, into its gates from
// row `to` on. What quantises its inputs makes numbers of NaN, so a lane breaks here.
template <class F>
void project(const Network& net, Lane* lanes, int count, const float* const* x, int to, int rows) {
    float* y[MOST_LANES * SAMPLES];
    const std::int64_t stride = std::int64_t(net.layer_count) * net.gate_width;
    for (int n = 0; n < count; ++n)
        for (int i = 0; i < rows; ++i) y[n * rows + i] = lanes[n].gates + (to + i) * stride;
    affine<F>(net.projection, x, y, count * rows);
    for (int n = 0; n < count; ++n)
        if (!finite(y[n * rows], net.layer_count * net.gate_width * rows)) lanes[n].broken = true;
}

// The gates' conditions of frames, rows of `heard`.
template <class F>
void project_frames(const Network& net, Lane* lanes, int count, int first, int frames) {
    const float* x[MOST_LANES * FRAMES];
    for (int n = 0; n < count; ++n)
        for (int f = 0; f < frames; ++f)
            x[n * frames + f] = lanes[n].heard + (first + f) * net.channels;
    project<F>(net, lanes, count, x, first, frames);
}

// Learned upsampling: the conditions of a frame's samples from frames `row` - 1 and `row`.
template <class F>
void spread_frame(const Network& net, Lane* lanes, int count, int row) {
    const float* x[MOST_LANES];
    float* y[MOST_LANES];
    for (int n = 0; n < count; ++n) {
        x[n] = lanes[n].heard + (row - 1) * net.channels;
        y[n] = lanes[n].upsampled;
    }
    affine<F>(net.upsample, x, y, count);
}

// The gates' conditions of samples t .. t + samples - 1 of the frame, under learned upsampling.
template <class F>
void project_samples(const Network& net, Lane* lanes, int count, int t, int samples) {
    const float* x[MOST_LANES * SAMPLES];
    for (int n = 0; n < count; ++n)
        for (int i = 0; i < samples; ++i)
            x[n * samples + i] = lanes[n].upsampled + (t + i) * net.channels;
    project<F>(net, lanes, count, x, 0, samples);
}

}  // namespace WAVEWN_SET
}  // namespace wavewn
