// See engine.hpp.

#include "engine.hpp"

#include <algorithm>
#include <cstring>

#include "denormals.hpp"

namespace wavewn {

namespace {

// Hands out pieces of a desk on boundaries of 64 bytes; without memory it only counts.
struct Desk {
    float* memory;
    std::int64_t used = 0;

    void give(float*& field, std::int64_t floats) {
        field = memory == nullptr ? nullptr : memory + used;
        used += (floats + 15) / 16 * 16;
    }
};

}  // namespace

void lay_state(Network& net) {
    std::int64_t end = 0;
    const auto take = [&](std::int64_t floats) {
        const std::int64_t begin = end;
        end += (floats + 15) / 16 * 16;
        return begin;
    };
    net.level = take(std::max(net.order, 1));
    net.emphasis = take(1);
    net.ahead = take(1);
    net.residual_ring = net.order ? take(std::max(net.longest, 1)) : 0;
    net.condition = take(net.channels);
    for (int i = 0; i < net.mel_count; ++i)
        net.mel_rings[i] = take(std::int64_t(net.mel_taps - 1) * (i ? net.channels : net.bands));
    for (int i = 0; i < net.layer_count; ++i) {
        Layer& layer = net.layers[i];
        layer.rows = (net.taps - 1) * layer.dilation;
        layer.ring = take(std::int64_t(layer.rows) * net.residual);
    }
    net.state_size = end;
}

std::int64_t lay_desk(const Network& net, Lane& lane, float* memory) {
    Desk desk{memory};
    const std::int64_t gates = std::int64_t(net.layer_count) * net.gate_width;
    const int lags = net.longest ? net.longest - net.shortest + 1 : 0;
    std::int64_t widest = 16 * net.predictor.vectors;
    widest = std::max<std::int64_t>(widest, 16 * net.pitch.vectors);
    std::int64_t inputs = std::max(net.taps * padded(net.residual, 16), net.gate_width);
    inputs = std::max<std::int64_t>({inputs, net.skip, net.hidden});
    for (int i = 0; i < net.mel_count; ++i) {
        const std::int64_t rows = net.mel_taps - 1 + FRAMES;
        desk.give(lane.mel_rows[i], rows * (i ? net.channels : net.bands));
        widest = std::max<std::int64_t>(widest, std::int64_t(FRAMES) * 16 * net.mel[i].vectors);
    }
    desk.give(lane.heard, std::int64_t(1 + FRAMES) * net.channels);
    desk.give(lane.wide, widest);
    desk.give(lane.gates, gates * std::max(1 + FRAMES, SAMPLES));
    desk.give(lane.upsampled, 16 * net.upsample.vectors);
    desk.give(lane.levels, padded(net.order, 16) + net.hop + 17);
    desk.give(lane.residuals, padded(net.longest, 16) + net.hop + 17);
    desk.give(lane.coefficients, padded(net.order, 16));
    desk.give(lane.lag_weights, padded(lags, 16));
    desk.give(lane.features, 16);
    desk.give(lane.carry, padded(net.residual, 16) + padded(net.skip, 16) + 16);
    desk.give(lane.gate, net.gate_width);
    desk.give(lane.z, net.gate_width / 2);
    desk.give(lane.operand, inputs + 16);
    desk.give(lane.hidden, padded(std::max(net.hidden, net.skip), 16));
    desk.give(lane.answer, padded(net.parameter_count, 16));
    desk.give(lane.scratch, padded(std::max(net.classes, net.components), 16));
    return desk.used;
}

Room::Room(const Network& net, int rows)
    : state_stride_(net.state_size + 16),  // vectors may reach over the end
      lanes_(static_cast<std::size_t>(rows)),
      order_(static_cast<std::size_t>(rows)) {
    const std::int64_t desk = lay_desk(net, lanes_[0], nullptr);
    const int seats = std::min(rows, MOST_LANES);
    const auto bytes = [](std::int64_t floats) { return sizeof(float) * std::size_t(floats); };
    states_ = aligned(bytes(rows * state_stride_));
    desks_ = aligned(bytes(seats * desk));
    std::memset(states_.get(), 0, bytes(rows * state_stride_));
    std::memset(desks_.get(), 0, bytes(seats * desk));
    for (int row = 0; row < rows; ++row)
        lay_desk(net, lanes_[std::size_t(row)],
                 static_cast<float*>(desks_.get()) + (row % seats) * desk);
}

void Room::seat(const Network& net, const Batch& batch, int row, Lane& lane,
                float* state) noexcept {
    std::memcpy(state, batch.state + row * net.state_size,
                sizeof(float) * std::size_t(net.state_size));
    lane.state = state;
    lane.clock = batch.clock[row];
    lane.ahead = static_cast<int>(state[net.ahead]);
    const std::int64_t due = std::max(lane.ahead + batch.frames - net.look_ahead, 0) *
                             std::int64_t(net.hop);
    const std::int64_t first = row * batch.samples + batch.samples - due;
    lane.mel = batch.mel + std::int64_t(row) * net.bands * batch.frames;
    lane.mel_stride = batch.frames;
    lane.noise = batch.noise ? batch.noise + row * batch.samples * net.draws : nullptr;
    lane.forced = batch.forced ? batch.forced + first : nullptr;
    lane.speaker = batch.speaker ? static_cast<int>(batch.speaker[row]) : 0;
    lane.temperature = batch.temperature;
    lane.audio = batch.audio ? batch.audio + first : nullptr;
    lane.parameters = batch.parameters ? batch.parameters + first * net.parameter_count : nullptr;
    lane.samples = 0;
    lane.broken = false;
}

Trouble Room::advance(const Network& net, Run run, const Batch& batch) noexcept {
    const FlushDenormals flush;
    for (int row = 0; row < batch.rows; ++row) order_[std::size_t(row)] = row;
    const auto ahead = [&](int row) { return batch.state[row * net.state_size + net.ahead]; };
    std::sort(order_.begin(), order_.begin() + batch.rows,
              [&](int a, int b) { return ahead(a) != ahead(b) ? ahead(a) < ahead(b) : a < b; });
    auto* const states = static_cast<float*>(states_.get());
    for (int begin = 0; begin < batch.rows;) {
        int end = begin;
        while (end < batch.rows && end - begin < MOST_LANES &&
               ahead(order_[std::size_t(end)]) == ahead(order_[std::size_t(begin)]) &&
               (end == begin || end % MOST_LANES))
            ++end;
        for (int i = begin; i < end; ++i)
            seat(net, batch, order_[std::size_t(i)], lanes_[std::size_t(i)],
                 states + i * state_stride_);
        run(net, lanes_.data() + begin, end - begin, batch.frames);
        begin = end;
    }
    for (int i = 0; i < batch.rows; ++i)
        if (lanes_[std::size_t(i)].broken)
            return {order_[std::size_t(i)],
                    batch.clock[order_[std::size_t(i)]] + lanes_[std::size_t(i)].samples};
    for (int i = 0; i < batch.rows; ++i) {
        const int row = order_[std::size_t(i)];
        std::memcpy(batch.state + row * net.state_size, lanes_[std::size_t(i)].state,
                    sizeof(float) * std::size_t(net.state_size));
        batch.clock[row] = lanes_[std::size_t(i)].clock;
    }
    return {};
}

}  // namespace wavewn
