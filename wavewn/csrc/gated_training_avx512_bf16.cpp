// See gated_training.hpp. The only set: others have no products of bfloat16.

#define WAVEWN_SET avx512_bf16
#include "gated_products.hpp"

namespace wavewn {
namespace WAVEWN_SET {
namespace {

constexpr std::int64_t TILE = 64;  // rows that stay in the first cache

// 2^x for x <= 40: of degree 3 within 1e-4 of it, of degree 5 within 3e-7, which tanh wants near 0
// even where it is rounded to bfloat16. Fitted on |rest| <= 1/2 so that 2^0 is 1.
INLINE Floats scaled_power(const Floats& x, const Floats& rest, const Floats& polynomial) {
    const __m512 whole = (__m512)(x - rest).part[0];
    return {{(NativeFloat)_mm512_scalef_ps((__m512)polynomial.part[0], whole)}};
}
INLINE Floats rest_of(const Floats& x) {
    return {{(NativeFloat)_mm512_reduce_ps((__m512)x.part[0], 0)}};
}
INLINE Floats power3(const Floats& x) {
    const Floats bounded = at_most(x, all(40.0f)), rest = rest_of(bounded);
    Floats y = fused(all(5.500893e-2f), rest, all(2.4221098e-1f));
    y = fused(y, rest, all(6.9328293e-1f));
    return scaled_power(bounded, rest, fused(y, rest, all(1.0f)));
}
INLINE Floats power5(const Floats& x) {
    const Floats bounded = at_most(x, all(40.0f)), rest = rest_of(bounded);
    Floats y = fused(all(1.32647e-3f), rest, all(9.67151e-3f));
    y = fused(y, rest, all(5.550734e-2f));
    y = fused(y, rest, all(2.4022242e-1f));
    y = fused(y, rest, all(6.9314698e-1f));
    return scaled_power(bounded, rest, fused(y, rest, all(1.0f)));
}

// ---- forwards ----

constexpr float TANH = -2.885390081777927f, SIGMOID = -1.4426950408889634f;  // -2 log2(e), -log2(e)

// What is added to the products of a tile's rows: bias and condition, times TANH or SIGMOID, once a
// frame.
struct Offsets {
    alignas(64) float now[TILE * 2 * MOST_GATED_CHANNELS];
    alignas(64) float slope[TILE * 2 * MOST_GATED_CHANNELS];  // if linear: what a whole frame adds
    std::int64_t place[TILE];                                 // of a row's frame
    float ramp[TILE];
};

INLINE void find_offsets(const GatedSizes& s, const GatedLayer& layer, std::int64_t batch,
                         std::int64_t begin, std::int64_t rows, Offsets& found) {
    const std::int64_t width = 2 * s.channels, stride = s.layers * width;
    const std::int64_t first = begin / s.hop, last = (begin + rows - 1) / s.hop;
    const Brain16* from = layer.condition + layer.index * width +
                          (batch * (s.frames() + (s.linear ? 1 : 0)) + first) * stride;
    for (std::int64_t frame = first; frame <= last; ++frame, from += stride)
        for (std::int64_t i = 0; i < width; i += 16) {
            const Floats factor = all(i % 32 == 0 ? TANH : SIGMOID), condition = Brain::widen(from + i);
            const std::int64_t place = (frame - first) * width + i;
            store(found.now + place, (load(layer.gate_bias + i) + condition) * factor);
            if (s.linear)
                store(found.slope + place, (Brain::widen(from + stride + i) - condition) * factor);
        }
    for (std::int64_t i = 0; i < rows; ++i) {
        const std::int64_t frame = (begin + i) / s.hop;
        found.place[i] = (frame - first) * width;
        found.ramp[i] =
            static_cast<float>(begin + i - frame * s.hop + 1) / static_cast<float>(s.hop);
    }
}

template <bool LINEAR>
struct Gates {
    static constexpr bool IN_BLOCKS = true;  // of 32 columns
    Left left;
    const Brain16* right;
    Ahead* ahead;  // or null
    std::int64_t column, channels;
    const Offsets* offsets;
    Brain16 *factors, *z;

    INLINE void prepare(std::int64_t) const {}
    INLINE Floats exponent(const Floats& sum, float factor, std::int64_t row, int more) const {
        const std::int64_t place = offsets->place[row] + column + more;
        Floats offset = load(offsets->now + place);
        if (LINEAR) offset = fused(load(offsets->slope + place), all(offsets->ramp[row]), offset);
        return fused(sum, all(factor), offset);
    }

    // A = e^-2a, B = e^-b: f = (1 - A) / (1 + A), g = 1 / (1 + B), with one division.
    template <int V>
    INLINE void finish(std::int64_t row, const Floats (&sum)[V]) const {
        const Floats one = all(1.0f);
        const Floats a = power5(exponent(sum[0], TANH, row, 0));
        const Floats b = one + power3(exponent(sum[1], SIGMOID, row, 16));
        const Floats quotient = one / ((one + a) * b), opened = (one - a) * quotient;
        // Past the caches: it is long until the way back, and a line is whole.
        _mm512_stream_si512(reinterpret_cast<__m512i*>(factors + row * 2 * channels + column),
                            narrow(opened * b, (one + a) * quotient));
        Brain::write(z + row * channels + column / 2, opened);
    }
};

// Sums and what is added to them, as bfloat16.
struct Added {
    static constexpr bool IN_BLOCKS = false;
    Left left;
    const Brain16* right;
    Ahead* ahead;  // or null
    std::int64_t column, channels;
    const float* bias;     // or null
    const Brain16* added;  // or null
    Brain16* to;

    INLINE void prepare(std::int64_t) const {}
    template <int V>
    INLINE void finish(std::int64_t row, const Floats (&sum)[V]) const {
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) {
            const std::int64_t place = row * channels + column + 16 * v;
            Floats y = sum[v];
            if (bias != nullptr) y = y + load(bias + column + 16 * v);
            if (added != nullptr) y = y + Brain::widen(added + place);
            Brain::write(to + place, y);
        }
    }
};

void forward(const GatedSizes& s, const GatedLayer& layer, std::int64_t job) {
    const std::int64_t R = s.channels, batch = job / s.segments();
    const std::int64_t start = job % s.segments() * s.segment;
    const std::int64_t end = smaller(start + s.segment, s.time);
    alignas(64) Brain16 z[TILE * MOST_GATED_CHANNELS];
    Offsets offsets;
    for (std::int64_t begin = start; begin < end; begin += TILE) {
        const std::int64_t rows = smaller(end - begin, TILE), row = batch * s.time + begin;
        const Brain16* const x = layer.x + (batch * (s.padding + s.time) + s.padding + begin) * R;
        find_offsets(s, layer, batch, begin, rows, offsets);
        const Left left = {x - (s.taps - 1) * layer.dilation * R, R, 2, R / 2, s.taps,
                           layer.dilation * R};
        Brain16* const factors = layer.factors + row * 2 * R;
        if (s.linear)
            multiply_all(Gates<true>{left, layer.gate, nullptr, 0, R, &offsets, factors, z}, rows,
                         2 * R);
        else
            multiply_all(Gates<false>{left, layer.gate, nullptr, 0, R, &offsets, factors, z}, rows,
                         2 * R);
        for (std::int64_t i = 0; i < rows; ++i) {
            Brain16* const to = layer.z + ((row + i) * s.layers + layer.index) * R;
            const Brain16* const from = z + i * R;
            for (std::int64_t c = 0; c < R; c += 16)
                _mm256_stream_si256(reinterpret_cast<__m256i*>(to + c),
                                    _mm256_load_si256(reinterpret_cast<const __m256i*>(from + c)));
        }
        if (layer.last) continue;
        multiply_all(Added{rows_of(z, R), layer.residual, nullptr, 0, R, layer.residual_bias, x,
                           layer.next + (x - layer.x)},
                     rows, R);
    }
    _mm_sfence();
}

// ---- backwards ----

struct Plain {
    static constexpr bool IN_BLOCKS = false;
    Left left;
    const Brain16* right;
    Ahead* ahead;  // or null
    std::int64_t column, stride;
    float* to;
    bool adds;

    INLINE void prepare(std::int64_t row) const {
        if (!adds) return;
        __builtin_prefetch(to + row * stride + column, 1);
        __builtin_prefetch(to + row * stride + column + 16, 1);
    }
    template <int V>
    INLINE void finish(std::int64_t row, const Floats (&sum)[V]) const {
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) {
            float* const place = to + row * stride + column + 16 * v;
            store(place, adds ? load(place) + sum[v] : sum[v]);
        }
    }
};

// to [left columns, right columns] += the sum over pairs of rows, both sides packed.
void add_outer(const Brain16* left, std::int64_t left_columns, const Brain16* right,
               std::int64_t right_columns, std::int64_t rows, float* to, std::int64_t stride,
               Ahead& ahead) {
    const std::int64_t pairs = (rows + 1) / 2;
    for (std::int64_t column = 0; column < left_columns; column += 32) {
        const std::int64_t width = smaller(left_columns - column, 32);
        const Left part = {left + column * 2 * pairs, 2, 2 * width, pairs, 1, 0};
        multiply_all(Plain{part, right, &ahead, 0, stride, to + column * stride, true}, width,
                     right_columns);
    }
}

// da and z of a tile, and the gradient of the condition, which is float32 sums of unrounded da.
template <bool LINEAR>
void open_backwards(const GatedSizes& s, const GatedLayer& layer, std::int64_t batch,
                    std::int64_t begin, std::int64_t rows, const float* through, Brain16* z) {
    const std::int64_t R = s.channels, row = batch * s.time + begin, width = s.layers * 2 * R;
    const Brain16* const factors = layer.factors + row * 2 * R;
    const Brain16* const dz = layer.dz + (row * s.layers + layer.index) * R;
    Brain16* const da = layer.da + (batch * (s.time + s.padding) + begin) * 2 * R;
    const std::int64_t home = batch * s.frames() * width + layer.index * 2 * R;
    for (std::int64_t c = 0; c < R; c += 16) {
        for (std::int64_t i = 0; i < rows;) {
            const std::int64_t frame = (begin + i) / s.hop;
            const std::int64_t next = smaller((frame + 1) * s.hop - begin, rows);
            Floats sum_f = all(0.0f), sum_g = sum_f, late_f = sum_f, late_g = sum_f;
            for (; i < next; ++i) {
                const __m512i both = _mm512_loadu_si512(factors + i * 2 * R + 2 * c);
                const Floats f = widen(_mm512_castsi512_si256(both));
                const Floats g = widen(_mm512_extracti64x4_epi64(both, 1));
                Floats d = Brain::widen(dz + i * s.layers * R + c);
                if (through != nullptr) d = d + load(through + i * R + c);
                const Floats product = f * g;
                const Floats df = d * (g - product * f), dg = d * (product - product * g);
                _mm512_storeu_si512(da + i * 2 * R + 2 * c, narrow(df, dg));
                Brain::write(z + i * R + c, product);
                sum_f = sum_f + df, sum_g = sum_g + dg;
                if (!LINEAR) continue;
                const Floats ramp = all(static_cast<float>(begin + i - frame * s.hop + 1) /
                                        static_cast<float>(s.hop));
                late_f = fused(df, ramp, late_f), late_g = fused(dg, ramp, late_g);
            }
            const std::int64_t place = home + frame * width + 2 * c;
            const auto add = [](float* to, const Floats& x) { store(to, load(to) + x); };
            if (LINEAR) {
                add(layer.dnow + place, late_f), add(layer.dnow + place + 16, late_g);
                add(layer.dbefore + place, sum_f - late_f);
                add(layer.dbefore + place + 16, sum_g - late_g);
            } else {
                add(layer.dnow + place, sum_f), add(layer.dnow + place + 16, sum_g);
            }
        }
    }
}

void add_rows(const Brain16* from, std::int64_t rows, std::int64_t columns, float* to) {
    for (std::int64_t c = 0; c < columns; c += 16) {
        Floats sum = load(to + c);
        for (std::int64_t i = 0; i < rows; ++i) sum = sum + Brain::widen(from + i * columns + c);
        store(to + c, sum);
    }
}

void backward_gates(const GatedSizes& s, const GatedLayer& layer, std::int64_t job) {
    const std::int64_t R = s.channels, batch = job / s.segments();
    const std::int64_t start = job % s.segments() * s.segment;
    const std::int64_t end = smaller(start + s.segment, s.time);
    float* const gate_sums = layer.sums + job * s.sums();
    float* const sums = gate_sums + s.gate_sums();
    std::memset(gate_sums, 0, sizeof(float) * static_cast<std::size_t>(s.sums()));
    alignas(64) float through[TILE * MOST_GATED_CHANNELS];
    alignas(64) Brain16 z[TILE * MOST_GATED_CHANNELS], left[TILE * MOST_GATED_CHANNELS],
        right[TILE * MOST_GATED_CHANNELS];
    for (std::int64_t begin = start; begin < end; begin += TILE) {
        const std::int64_t rows = smaller(end - begin, TILE);
        const std::int64_t row = batch * s.time + begin, after = smaller(end - begin - rows, TILE);
        const Brain16* const dx = layer.dx + row * R;
        Ahead ahead = {{{layer.factors + (row + rows) * 2 * R, after, 2 * R, 2 * R},
                        {layer.dz + ((row + rows) * s.layers + layer.index) * R, after,
                         s.layers * R, R}}};
        if (!layer.last)
            multiply_all(
                Plain{rows_of(dx, R), layer.residual_back, &ahead, 0, R, through, false}, rows, R);
        const auto open = s.linear ? open_backwards<true> : open_backwards<false>;
        open(s, layer, batch, begin, rows, layer.last ? nullptr : through, z);
        if (layer.last) continue;
        pack(dx, R, rows, R, left);
        pack(z, R, rows, R, right);
        add_outer(left, R, right, R, rows, sums, R, ahead);
        add_rows(dx, rows, R, sums + R * R);
    }
}

void backward_inputs(const GatedSizes& s, const GatedLayer& layer, std::int64_t job) {
    const std::int64_t R = s.channels, batch = job / s.segments();
    const std::int64_t start = job % s.segments() * s.segment;
    const std::int64_t end = smaller(start + s.segment, s.time);
    float* const sums = layer.sums + job * s.sums();
    alignas(64) Brain16 left[2 * TILE * MOST_GATED_CHANNELS], right[TILE * MOST_GATED_CHANNELS];
    for (std::int64_t begin = start; begin < end; begin += TILE) {
        const std::int64_t rows = smaller(end - begin, TILE);
        const std::int64_t context = (s.taps - 1) * layer.dilation;
        const Brain16* const da = layer.da + (batch * (s.time + s.padding) + begin) * 2 * R;
        const Brain16* const x = layer.x + (batch * (s.padding + s.time) + s.padding + begin) * R;
        Brain16* const dx = layer.dx + (batch * s.time + begin) * R;
        const std::int64_t after = smaller(end - begin - rows, TILE);
        Ahead ahead = {{{da + rows * 2 * R, after, 2 * R, 2 * R}, {x + rows * R, after, R, R}}};
        const Left later = {da + context * 2 * R, 2 * R, 2, R, s.taps, -layer.dilation * 2 * R};
        const Brain16* const added = layer.last ? nullptr : dx;
        multiply_all(Added{later, layer.gate_back, &ahead, 0, R, nullptr, added, dx}, rows, R);
        pack(da, 2 * R, rows, 2 * R, left);
        for (std::int64_t tap = 0; tap < s.taps; ++tap) {
            pack(x + (tap * layer.dilation - context) * R, R, rows, R, right);
            add_outer(left, 2 * R, right, R, rows, sums + tap * R, s.taps * R, ahead);
        }
    }
}

void total(const float* sums, std::int64_t jobs, std::int64_t count, float* to) {
    for (std::int64_t i = 0; i < count; i += 16) {
        Floats sum = load(sums + i);
        for (std::int64_t job = 1; job < jobs; ++job) sum = sum + load(sums + job * count + i);
        store(to + i, sum);
    }
}

}  // namespace

extern const GatedKernels gated_training = {pack_matrix, forward, backward_gates, backward_inputs,
                                            total};

}  // namespace WAVEWN_SET
}  // namespace wavewn
