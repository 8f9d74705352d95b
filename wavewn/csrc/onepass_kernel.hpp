// The steps of one-pass models; see onepass.hpp. Compiled once for each instruction set.
//
// Whatever is read or written in whole vectors beyond a buffer's end lies within the room that
// every buffer has behind it (`SLACK` in engine/onepass_program.py).

#pragma once

#include "onepass.hpp"
#include "onepass_operands.hpp"
#include "onepass_precise.hpp"
#if defined(__AMX_BF16__) || defined(WAVEWN_IMITATE_AMX)
#define WAVEWN_TILES
#include "onepass_tiles.hpp"
#endif
#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {

// Rows and vectors whose sums stay in registers at once.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int TILE_ROWS = 8;
#elif defined(__AVX2__)
constexpr int TILE_ROWS = 6;
#else
constexpr int TILE_ROWS = 2;
#endif
#if defined(__AVX512F__)
constexpr int TILE_VECTORS = 2;
#else
constexpr int TILE_VECTORS = 1;
#endif

// Products of a convolution from which on threads share it: some 5 us of work.
constexpr std::int64_t WORTH_SHARING = 400000;

template <class P>
INLINE void write_part(typename P::Operand* to, const Floats& x, int count) {
    if (count == 16) return P::write(to, x);
    typename P::Operand lane[16];
    P::write(lane, x);
    std::memcpy(to, lane, sizeof(*to) * static_cast<std::size_t>(count));
}

// ---- convolution ----

template <class P>
struct Tile {
    const typename P::Operand* weights;
    const float* bias;
    const float* added;           // or null
    float* to;                    // or null
    typename P::Operand* heard;   // or null
    float slope;
    std::int64_t inputs, outputs, taps, dilation, stride;
    int width;  // outputs of the last vector

    // The same, so many rows of outputs further.
    Tile below(std::int64_t rows) const {
        Tile t = *this;
        const std::int64_t numbers = rows * outputs;
        if (added != nullptr) t.added += numbers;
        if (to != nullptr) t.to += numbers;
        if (heard != nullptr) t.heard += numbers;
        return t;
    }
};

// A row's sums are what the layer gives.
template <class P, int V>
INLINE void finish(const Tile<P>& t, std::int64_t row, const Floats (&sum)[V]) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
        const std::int64_t place = row * t.outputs + 16 * v;
        const int width = v + 1 == V ? t.width : 16;
        const Floats y = t.added == nullptr ? sum[v] : sum[v] + load(t.added + place);
        if (t.to != nullptr) store_part(t.to + place, y, width);
        if (t.heard != nullptr)
            write_part<P>(t.heard + place, at_least(y * all(t.slope), y), width);
    }
}

// `R` rows, `V` vectors of outputs.
template <class P, int R, int V>
INLINE void tile(const Tile<P>& t, const typename P::Operand* from) {
    using Operand = typename P::Operand;
    Floats sum[R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) sum[r][v] = load(t.bias + 16 * v);
    const Operand* w = t.weights;
    const std::int64_t step = t.inputs * t.stride;
    constexpr int BASES = (R + 2) / 3;  // of three rows each: an address has no more registers
    for (std::int64_t tap = 0; tap < t.taps; ++tap) {
        const Operand* base[BASES];
#pragma GCC unroll 4
        for (int b = 0; b < BASES; ++b) base[b] = from + tap * t.dilation * t.inputs + 3 * b * step;
        for (std::int64_t i = 0; i < t.inputs; i += P::GROUP) {
            typename P::Weights weight[V];
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) weight[v] = P::read(w + 16 * P::GROUP * v);
            w += 16 * P::GROUP * V;
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const auto x = P::spread(base[r / 3] + (r % 3) * step);
#pragma GCC unroll 2
                for (int v = 0; v < V; ++v) sum[r][v] = P::meet(weight[v], x, sum[r][v]);
            }
#pragma GCC unroll 4
            for (int b = 0; b < BASES; ++b) base[b] += P::GROUP;
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) finish<P, V>(t, r, sum[r]);
}

// Not inlined: all of them in one function would spill each other's registers.
template <class P, int V, int R = TILE_ROWS>
__attribute__((noinline)) void tiles(const Tile<P>& t, const typename P::Operand* from, int rows) {
    if (rows == R) return tile<P, R, V>(t, from);
    if constexpr (R > 1) tiles<P, V, R - 1>(t, from, rows);
}

// All rows of a panel of outputs, in tiles of nearly one size.
template <class P, int V>
void panel(const Tile<P>& t, const typename P::Operand* from, std::int64_t rows) {
#if defined(WAVEWN_TILES)
    if (const std::int64_t depth = tile_inputs(t.inputs)) {
        const auto use = [&](std::int64_t row, const float(&sums)[V][16]) {
            Floats sum[V];
            for (int v = 0; v < V; ++v) sum[v] = load(sums[v]);
            finish<P, V>(t, row, sum);
        };
        return convolve_by_tiles<V>(t, from, rows, depth, use);
    }
#endif
    const std::int64_t count = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (std::int64_t n = 0; n < count; ++n) {
        const std::int64_t begin = rows * n / count, end = rows * (n + 1) / count;
        tiles<P, V>(t.below(begin), from + begin * t.inputs * t.stride, static_cast<int>(end - begin));
    }
}

template <class T>
INLINE T* place(char* arena, std::int64_t offset) {
    return offset < 0 ? nullptr : reinterpret_cast<T*>(arena + offset);
}

// Rows `begin` to `end` of a convolution.
template <class P>
void convolve_rows(const OnePassRun& run, const ConvStep& step, std::int64_t begin,
                   std::int64_t end) {
    using Operand = typename P::Operand;
    const OnePassLayer& layer = run.layers[step.layer];
    const auto* const from =
        place<const Operand>(run.arena, step.from) + begin * layer.inputs * layer.stride;
    auto* const to = place<float>(run.arena, step.to);
    auto* const heard = place<Operand>(run.arena, step.heard);
    const auto* const added = place<const float>(run.arena, step.added);
    const auto* w = static_cast<const Operand*>(layer.weights);
    for (std::int64_t first = 0; first < layer.outputs;) {
        const std::int64_t left = layer.outputs - first;
        const int vectors = left > 16 ? TILE_VECTORS : 1;  // side by side in the weights
        const auto count = static_cast<int>(left < 16 * vectors ? left : 16 * vectors);
        Tile<P> t{};
        t.weights = w;
        t.bias = layer.bias + first;
        t.added = added == nullptr ? nullptr : added + first;
        t.to = to == nullptr ? nullptr : to + first;
        t.heard = heard == nullptr ? nullptr : heard + first;
        t.slope = step.slope;
        t.inputs = layer.inputs, t.outputs = layer.outputs, t.taps = layer.taps;
        t.dilation = layer.dilation, t.stride = layer.stride;
        t.width = count - 16 * (vectors - 1);
        if (vectors == 1)
            panel<P, 1>(t.below(begin), from, end - begin);
        else
            panel<P, TILE_VECTORS>(t.below(begin), from, end - begin);
        w += layer.taps * layer.inputs * 16 * vectors;
        first += 16 * vectors;
    }
}

struct Shared {
    const OnePassRun* run;
    const ConvStep* step;
};

template <class P>
void convolve_share(void* argument, int index) {
    const Shared& shared = *static_cast<const Shared*>(argument);
    const std::int64_t rows = shared.step->rows, threads = shared.run->sharing->threads;
    convolve_rows<P>(*shared.run, *shared.step, rows * index / threads,
                     rows * (index + 1) / threads);
}

template <class P>
void convolve(const OnePassRun& run, const ConvStep& step) {
    const OnePassLayer& layer = run.layers[step.layer];
    if (layer.kind != LayerKind::product) {
        const auto* const from = place<const float>(run.arena, step.from);
        const auto make = layer.kind == LayerKind::precise ? convolve_precisely : smooth;
        return make(layer, from, place<float>(run.arena, step.to), step.rows);
    }
    const std::int64_t products = step.rows * layer.taps * layer.inputs * layer.outputs;
    if (run.sharing->threads == 1 || products < WORTH_SHARING)
        return convolve_rows<P>(run, step, 0, step.rows);
    Shared shared{&run, &step};
    run.sharing->share(run.sharing->context, run.sharing->threads, convolve_share<P>, &shared);
}

// ---- what treats each number by itself ----

INLINE Floats mapped(Map map, float number, const Floats& x) {
    if (map == Map::leaky) return at_least(x * all(number), x);
    if (map == Map::divide) return x * all(1.0f / number);  // within a bit of the quotient
    if (map == Map::scale) return x * all(number);
    if (map == Map::tanh) {  // (1 - a) / (1 + a), a = e^-2x
        const Floats a = exp2(clamp(x * all(-2.885390081777927f), -40.0f, 40.0f));
        return (all(1.0f) - a) / (all(1.0f) + a);
    }
    return x;
}

template <class P>
INLINE void map_all(const MapStep& s, Map map, const float* from, float* floats,
                    typename P::Operand* operands) {
    std::int64_t i = 0;
    if (floats != nullptr) {
        for (; i + 16 <= s.count; i += 16) store(floats + i, mapped(map, s.number, load(from + i)));
    } else {
        for (; i + 16 <= s.count; i += 16)
            P::write(operands + i, mapped(map, s.number, load(from + i)));
    }
    if (i == s.count) return;
    float lane[16] = {};
    for (int n = 0; n < s.count - i; ++n) lane[n] = from[i + n];
    store(lane, mapped(map, s.number, load(lane)));
    for (int n = 0; n < s.count - i; ++n) {
        if (floats != nullptr)
            floats[i + n] = lane[n];
        else
            operands[i + n] = P::narrow(lane[n]);
    }
}

template <class P>
void map(const OnePassRun& run, const MapStep& s) {
    const auto outside = static_cast<std::int64_t>(Place::outside);
    const auto operands = static_cast<std::int64_t>(Place::operands);
    const float* from = reinterpret_cast<const float*>(run.arena + s.from);
    if (s.from_place == outside) from = run.mel + s.from;
    if (s.from_place == static_cast<std::int64_t>(Place::drive)) from = run.drive + s.from;
    float* floats = nullptr;
    typename P::Operand* inputs = nullptr;
    if (s.to_place == outside)
        floats = run.audio + s.to;
    else if (s.to_place == operands)
        inputs = reinterpret_cast<typename P::Operand*>(run.arena + s.to);
    else
        floats = reinterpret_cast<float*>(run.arena + s.to);
    // A loop for each: the compiler takes the choice out of it.
    switch (s.map) {
        case Map::copy: return map_all<P>(s, Map::copy, from, floats, inputs);
        case Map::leaky: return map_all<P>(s, Map::leaky, from, floats, inputs);
        case Map::divide: return map_all<P>(s, Map::divide, from, floats, inputs);
        case Map::tanh: return map_all<P>(s, Map::tanh, from, floats, inputs);
        case Map::scale: return map_all<P>(s, Map::scale, from, floats, inputs);
    }
}

template <class P>
void load_rows(const OnePassRun& run, const LoadStep& s) {
    const float* const from = run.state + s.state;
    char* const to = run.arena + s.buffer;
    if (!s.is_operand) return copy(reinterpret_cast<float*>(to), from, static_cast<int>(s.count));
    auto* const operands = reinterpret_cast<typename P::Operand*>(to);
    std::int64_t i = 0;
    for (; i + 16 <= s.count; i += 16) P::write(operands + i, load(from + i));
    for (; i < s.count; ++i) operands[i] = P::narrow(from[i]);
}

template <class P>
void save_rows(const OnePassRun& run, const SaveStep& s) {
    float* const to = run.state + s.state;
    const char* const from = run.arena + s.buffer;
    if (!s.is_operand)
        return copy(to, reinterpret_cast<const float*>(from), static_cast<int>(s.count));
    const auto* const operands = reinterpret_cast<const typename P::Operand*>(from);
    std::int64_t i = 0;
    for (; i + 16 <= s.count; i += 16) store(to + i, P::widen(operands + i));
    for (; i < s.count; ++i) to[i] = P::wide(operands[i]);
}

template <class T>
INLINE void pad_with(T* rows, const PadStep& s) {
    const std::size_t size = sizeof(*rows) * static_cast<std::size_t>(s.channels);
    const std::int64_t first = s.left, last = s.left + s.rows - 1;
    for (std::int64_t n = 0; n < s.left + s.right; ++n) {
        const bool before = n < s.left;
        const std::int64_t to = before ? n : n + s.rows;
        if (s.mode == PadMode::zeros) {
            std::memset(rows + to * s.channels, 0, size);
            continue;
        }
        std::int64_t from = before ? first : last;
        if (s.mode == PadMode::reflect) from = 2 * from - to;
        std::memcpy(rows + to * s.channels, rows + from * s.channels, size);
    }
}

template <class P>
void pad_rows(const OnePassRun& run, const PadStep& s) {
    if (s.is_operand)
        pad_with(place<typename P::Operand>(run.arena, s.buffer), s);
    else
        pad_with(place<float>(run.arena, s.buffer), s);
}

// Write rows of `channels` numbers, as floats or as operands, vector by vector: make(row, i) gives
// those of a row from channel i on.
template <class P, class Make>
INLINE void write_rows(char* arena, std::int64_t to_place, std::int64_t to, std::int64_t rows,
                       std::int64_t channels, const Make& make) {
    const bool narrow = to_place == static_cast<std::int64_t>(Place::operands);
    auto* const floats = place<float>(arena, to);
    auto* const operands = place<typename P::Operand>(arena, to);
    for (std::int64_t row = 0; row < rows; ++row)
        for (std::int64_t i = 0; i < channels; i += 16) {
            const auto count = static_cast<int>(channels - i < 16 ? channels - i : 16);
            if (narrow)
                write_part<P>(operands + row * channels + i, make(row, i), count);
            else
                store_part(floats + row * channels + i, make(row, i), count);
        }
}

template <class P>
void gate(const OnePassRun& run, const GateStep& s) {
    const auto* const from = place<const float>(run.arena, s.from);
    const auto make = [&](std::int64_t row, std::int64_t i) {
        const float* const f = from + 2 * row * s.channels + i;
        return activated(load(f) * all(-2.885390081777927f),
                         load(f + s.channels) * all(-1.4426950408889634f));
    };
    write_rows<P>(run.arena, s.to_place, s.to, s.rows, s.channels, make);
}

template <class P>
void repeat(const OnePassRun& run, const RepeatStep& s) {
    const auto* const from = place<const float>(run.arena, s.from);
    const auto make = [&](std::int64_t row, std::int64_t i) {
        return load(from + row / s.factor * s.channels + i);
    };
    write_rows<P>(run.arena, s.to_place, s.to, s.rows * s.factor, s.channels, make);
}

inline void add_all(const OnePassRun& run, const AddStep& s) {
    const auto* const a = reinterpret_cast<const float*>(run.arena + s.a);
    const auto* const b = reinterpret_cast<const float*>(run.arena + s.b);
    auto* const to = reinterpret_cast<float*>(run.arena + s.to);
    for (std::int64_t i = 0; i < s.count; i += 16) store(to + i, load(a + i) + load(b + i));
}

template <class P>
void blend(const OnePassRun& run, const BlendStep& s) {
    const auto* const a = place<const float>(run.arena, s.a);
    const auto* const b = place<const float>(run.arena, s.b);
    const auto* const c = place<const float>(run.arena, s.c);
    auto* const to = place<typename P::Operand>(run.arena, s.to);
    const auto mean = [&](const Floats& sum) {
        return mapped(Map::leaky, s.slope, mapped(Map::divide, s.divisor, sum));
    };
    if (c == nullptr)
        for (std::int64_t i = 0; i < s.count; i += 16)
            P::write(to + i, mean(load(a + i) + load(b + i)));
    else
        for (std::int64_t i = 0; i < s.count; i += 16)
            P::write(to + i, mean(load(a + i) + load(b + i) + load(c + i)));
}

template <class P>
void run_steps(const OnePassRun& run) {
    for (std::int64_t n = 0; n < run.count; ++n) {
        const Step& step = run.steps[n];
        switch (step.kind) {
            case StepKind::load: load_rows<P>(run, step.load); break;
            case StepKind::save: save_rows<P>(run, step.save); break;
            case StepKind::pad: pad_rows<P>(run, step.pad); break;
            case StepKind::map: map<P>(run, step.map); break;
            case StepKind::conv: convolve<P>(run, step.conv); break;
            case StepKind::add: add_all(run, step.add); break;
            case StepKind::gate: gate<P>(run, step.gate); break;
            case StepKind::repeat: repeat<P>(run, step.repeat); break;
            case StepKind::blend: blend<P>(run, step.blend); break;
        }
    }
}

#if defined(__AVX512BF16__) || defined(WAVEWN_IMITATE_AMX)
extern const OnePassKernels onepass = {nullptr, run_steps<Brain>, TILE_VECTORS};
#else
extern const OnePassKernels onepass = {run_steps<Single>, nullptr, TILE_VECTORS};
#endif

}  // namespace WAVEWN_SET
}  // namespace wavewn
