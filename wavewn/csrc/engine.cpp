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
    desk.give(lane.kept, std::int64_t(net.layer_count) * SAMPLES * net.kept_width);
    for (auto& bench : lane.bench) {
        desk.give(bench.gate, SAMPLES * net.gate_width);
        desk.give(bench.z, net.gate_width / 2);
        desk.give(bench.operand, SAMPLES * net.operand_width);
    }
    desk.give(lane.hidden, padded(std::max(net.hidden, net.skip), 16));
    desk.give(lane.answer, padded(net.parameter_count, 16));
    desk.give(lane.scratch, 2 * padded(std::max(net.classes, net.components), 16));
    return desk.used;
}

Room::Room(const Network& net, Kernel kernel, int rows, int threads, int cut)
    : net_(net),
      kernel_(kernel),
      state_stride_(net.state_size + 16),  // vectors may reach over the end
      lanes_(static_cast<std::size_t>(rows)),
      order_(static_cast<std::size_t>(rows)),
      lots_(static_cast<std::size_t>(rows)),
      workers_(threads) {
    const std::int64_t desk = lay_desk(net, lanes_[0], nullptr);
    const auto bytes = [](std::int64_t floats) { return sizeof(float) * std::size_t(floats); };
    states_ = aligned(bytes(rows * state_stride_));
    desks_ = aligned(bytes(rows * desk));
    std::memset(states_.get(), 0, bytes(rows * state_stride_));
    std::memset(desks_.get(), 0, bytes(rows * desk));
    for (int i = 0; i < rows; ++i)
        lay_desk(net, lanes_[std::size_t(i)], static_cast<float*>(desks_.get()) + i * desk);
    relay_.cut = cut;
}

void Room::wake() {
    if (!workers_.ours()) workers_.restart();
}

void Room::seat(const Batch& batch, int row, Lane& lane, float* state) noexcept {
    std::memcpy(state, batch.state + row * net_.state_size,
                sizeof(float) * std::size_t(net_.state_size));
    lane.state = state;
    lane.clock = batch.clock[row];
    lane.ahead = static_cast<int>(state[net_.ahead]);
    const std::int64_t due = std::max(lane.ahead + batch.frames - net_.look_ahead, 0) *
                             std::int64_t(net_.hop);
    const std::int64_t first = row * batch.samples + batch.samples - due;
    lane.mel = batch.mel + std::int64_t(row) * net_.bands * batch.frames;
    lane.mel_stride = batch.frames;
    lane.noise = batch.noise ? batch.noise + row * batch.samples * net_.draws : nullptr;
    lane.forced = batch.forced ? batch.forced + first : nullptr;
    lane.speaker = batch.speaker ? static_cast<int>(batch.speaker[row]) : 0;
    lane.temperature = batch.temperature;
    lane.audio = batch.audio ? batch.audio + first : nullptr;
    lane.parameters = batch.parameters ? batch.parameters + first * net_.parameter_count : nullptr;
    lane.samples = 0;
    lane.broken = false;
}

void Room::run_lot(void* room, int index) {
    auto& self = *static_cast<Room*>(room);
    const Lot lot = self.lots_[std::size_t(index)];
    self.kernel_.lead(self.net_, &self.lanes_[std::size_t(lot.begin)], lot.end - lot.begin,
                      self.frames_, nullptr);
}

void Room::run_half(void* room, int side) {
    auto& self = *static_cast<Room*>(room);
    if (side == 0)
        self.kernel_.lead(self.net_, self.lanes_.data(), 1, self.frames_, &self.relay_);
    else
        self.kernel_.follow(self.net_, self.lanes_.data(), 1, &self.relay_);
}

Trouble Room::advance(const Batch& batch) noexcept {
    const FlushDenormals flush;
    const auto ahead = [&](int row) { return batch.state[row * net_.state_size + net_.ahead]; };
    for (int row = 0; row < batch.rows; ++row) order_[std::size_t(row)] = row;
    std::sort(order_.begin(), order_.begin() + batch.rows,
              [&](int a, int b) { return ahead(a) != ahead(b) ? ahead(a) < ahead(b) : a < b; });
    auto* const states = static_cast<float*>(states_.get());
    const int threads = workers_.threads();
    const int most = std::min((batch.rows + threads - 1) / threads, MOST_LANES);
    int lots = 0;
    for (int i = 0; i < batch.rows; ++i) {
        const int row = order_[std::size_t(i)];
        seat(batch, row, lanes_[std::size_t(i)], states + i * state_stride_);
        const bool joins = lots > 0 && i - lots_[std::size_t(lots - 1)].begin < most &&
                           ahead(row) == ahead(order_[std::size_t(i - 1)]);
        if (joins)
            lots_[std::size_t(lots - 1)].end = i + 1;
        else
            lots_[std::size_t(lots++)] = {i, i + 1};
    }
    frames_ = batch.frames;
    relay_.there = relay_.back = 0;
    if (batch.rows == 1 && threads > 1 && relay_.cut > 0)
        workers_.run(2, run_half, this);
    else if (lots == 1)
        run_lot(this, 0);
    else
        workers_.run(lots, run_lot, this);

    for (int i = 0; i < batch.rows; ++i) {
        const Lane& lane = lanes_[std::size_t(i)];
        const int row = order_[std::size_t(i)];
        if (lane.broken) return {row, batch.clock[row] + lane.samples};
    }
    for (int i = 0; i < batch.rows; ++i) {
        const int row = order_[std::size_t(i)];
        std::memcpy(batch.state + row * net_.state_size, lanes_[std::size_t(i)].state,
                    sizeof(float) * std::size_t(net_.state_size));
        batch.clock[row] = lanes_[std::size_t(i)].clock;
    }
    return {};
}

int middle_of(const Network& net, const void* arena_end) {
    const auto begin = reinterpret_cast<std::uintptr_t>(net.layers[0].gate.weights);
    const auto end = reinterpret_cast<std::uintptr_t>(arena_end);
    int cut = 1;
    while (cut < net.layer_count &&
           reinterpret_cast<std::uintptr_t>(net.layers[cut].gate.weights) - begin <
               (end - begin) / 2)
        ++cut;
    return cut < net.layer_count ? cut : 0;
}

}  // namespace wavewn
