// See gated_training.hpp. The only set: others have no products of bfloat16.

#define WAVEWN_SET avx512_bf16
#include "gated_training.hpp"
#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {
namespace {

constexpr std::int64_t TILE = 64;  // rows that stay in the first cache
constexpr int GROUP = 8;           // rows whose sums stay in registers, with two vectors each

INLINE std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// ---- sixteen bfloat16 ----

INLINE Floats widen(__m256i bits16) {
    return {{(NativeFloat)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits16), 16)}};
}
INLINE Floats widen(const Brain16* from) {
    return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
INLINE __m256i narrow(const Floats& x) {
    return (__m256i)_mm512_cvtneps_pbh((__m512)x.part[0]);
}
INLINE void write(Brain16* to, const Floats& x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow(x));
}
// Two vectors side by side.
INLINE __m512i narrow(const Floats& low, const Floats& high) {
    return (__m512i)_mm512_cvtne2ps_pbh((__m512)high.part[0], (__m512)low.part[0]);
}

// ---- products ----

// The left side of a product: rows of numbers in pairs; strides in numbers.
struct Left {
    const Brain16* from;
    std::int64_t row, pair;
    std::int64_t pairs;       // in a tap
    std::int64_t taps, tap;   // their number, and how far one lies behind the other
};

// sum[r][v] += the products of R rows with V vectors of columns, packed.
template <int R, int V>
INLINE void multiply(Floats (&sum)[R][V], const Left& left, std::int64_t row, const Brain16* right) {
    constexpr int BASES = (R + 2) / 3;  // of three rows each: an address has no more registers
    for (std::int64_t tap = 0; tap < left.taps; ++tap) {
        const Brain16* base[BASES];
#pragma GCC unroll 4
        for (int b = 0; b < BASES; ++b)
            base[b] = left.from + tap * left.tap + (row + 3 * b) * left.row;
        for (std::int64_t i = 0; i < left.pairs; ++i) {
            __m512i weight[V];
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) weight[v] = _mm512_loadu_si512(right + 32 * v);
            right += 32 * V;
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                std::int32_t pair;
                std::memcpy(&pair, base[r / 3] + (r % 3) * left.row, 4);
                const __m512i x = _mm512_set1_epi32(pair);
#pragma GCC unroll 2
                for (int v = 0; v < V; ++v)
                    sum[r][v].part[0] = (NativeFloat)_mm512_dpbf16_ps(
                        (__m512)sum[r][v].part[0], (__m512bh)weight[v], (__m512bh)x);
            }
#pragma GCC unroll 4
            for (int b = 0; b < BASES; ++b) base[b] += left.pair;
        }
    }
}

// Each kind of product says in `finish` what becomes of its sums. Not inlined: all of them in one
// function would spill each other's registers.
template <class Product, int V, int R = GROUP>
__attribute__((noinline)) void group(const Product& product, std::int64_t row, std::int64_t rows) {
    if (rows == R) {
        Floats sum[R][V];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) sum[r][v] = product.begin(row + r, v);
        multiply<R, V>(sum, product.left, row, product.right);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) product.template finish<V>(row + r, sum[r]);
        return;
    }
    if constexpr (R > 1) group<Product, V, R - 1>(product, row, rows);
}

// All rows and columns; `right` is the packed matrix.
template <class Product>
void multiply_all(Product product, std::int64_t rows, std::int64_t columns) {
    const Brain16* const right = product.right;
    const std::int64_t depth = 2 * product.left.pairs * product.left.taps;
    for (std::int64_t column = 0; column < columns; column += 32) {
        product.column = column;
        product.right = right + column * depth;
        for (std::int64_t row = 0; row < rows; row += GROUP) {
            const std::int64_t count = smaller(rows - row, GROUP);
            if constexpr (!Product::IN_BLOCKS) {
                if (columns - column <= 16) {
                    group<Product, 1>(product, row, count);
                    continue;
                }
            }
            group<Product, 2>(product, row, count);
        }
    }
}

void pack(const Brain16* from, std::int64_t stride, std::int64_t rows, std::int64_t columns,
          Brain16* to) {
    alignas(64) Brain16 order[64];
    for (int i = 0; i < 32; ++i) {
        order[i] = static_cast<Brain16>(i / 2 + 32 * (i % 2));
        order[32 + i] = static_cast<Brain16>(order[i] + 16);
    }
    const __m512i low = _mm512_load_si512(order), high = _mm512_load_si512(order + 32);
    for (std::int64_t column = 0; column < columns; column += 32) {
        const bool wide = columns - column > 16;
        const __mmask32 lanes = wide ? 0xffffffffu : 0xffffu;
        for (std::int64_t row = 0; row < rows; row += 2) {
            const Brain16* const first = from + row * stride + column;
            const __m512i a = _mm512_maskz_loadu_epi16(lanes, first);
            const __m512i b = row + 1 < rows ? _mm512_maskz_loadu_epi16(lanes, first + stride)
                                             : _mm512_setzero_si512();
            _mm512_storeu_si512(to, _mm512_permutex2var_epi16(a, low, b));
            to += 32;
            if (!wide) continue;
            _mm512_storeu_si512(to, _mm512_permutex2var_epi16(a, high, b));
            to += 32;
        }
    }
}

void pack_matrix(const Brain16* from, std::int64_t rows, std::int64_t columns, Brain16* to) {
    pack(from, columns, rows, columns, to);
}

// Row-major rows as the left side.
INLINE Left rows_of(const Brain16* from, std::int64_t columns) {
    return {from, columns, 2, columns / 2, 1, 0};
}

// ---- forwards ----

// Where the condition of a tile's rows lies.
struct Conditions {
    const Brain16* before[TILE];
    const Brain16* now[TILE];
    float ramp[TILE];
};

INLINE void find_conditions(const GatedSizes& s, const GatedLayer& layer, std::int64_t batch,
                            std::int64_t begin, std::int64_t rows, Conditions& found) {
    const std::int64_t width = s.layers * 2 * s.channels;
    const std::int64_t frames = s.frames() + (s.linear ? 1 : 0);
    const Brain16* const from = layer.condition + batch * frames * width + layer.index * 2 * s.channels;
    for (std::int64_t i = 0; i < rows; ++i) {
        const std::int64_t frame = (begin + i) / s.hop;
        found.before[i] = from + frame * width;
        found.now[i] = found.before[i] + (s.linear ? width : 0);
        found.ramp[i] = static_cast<float>(begin + i - frame * s.hop + 1) / static_cast<float>(s.hop);
    }
}

template <bool LINEAR>
struct Gates {
    static constexpr bool IN_BLOCKS = true;  // of 32 columns
    Left left;
    const Brain16* right;
    std::int64_t column, channels;
    const float* bias;
    const Conditions* conditions;
    Brain16 *factors, *z;

    INLINE Floats begin(std::int64_t row, int v) const {
        const std::int64_t place = column + 16 * v;
        Floats condition = widen(conditions->now[row] + place);
        if (LINEAR) {
            const Floats before = widen(conditions->before[row] + place);
            condition = fused(condition - before, all(conditions->ramp[row]), before);
        }
        return load(bias + place) + condition;
    }

    // A = e^-2a, B = e^-b: f = (1 - A) / (1 + A), g = 1 / (1 + B), with one division.
    template <int V>
    INLINE void finish(std::int64_t row, const Floats (&sum)[V]) const {
        const Floats one = all(1.0f);
        const Floats a = exp2(clamp(sum[0] * all(-2.885390081777927f), -40.0f, 40.0f));
        const Floats b = one + exp2(clamp(sum[1] * all(-1.4426950408889634f), -40.0f, 40.0f));
        const Floats quotient = one / ((one + a) * b);
        const __m512i both = narrow((one - a) * b * quotient, (one + a) * quotient);
        _mm512_storeu_si512(factors + row * 2 * channels + column, both);
        const Floats f = widen(_mm512_castsi512_si256(both));
        write(z + row * channels + column / 2, f * widen(_mm512_extracti64x4_epi64(both, 1)));
    }
};
// Sums and what is added to them, as bfloat16.
struct Added {
    static constexpr bool IN_BLOCKS = false;
    Left left;
    const Brain16* right;
    std::int64_t column, channels;
    const float* bias;     // or null
    const Brain16* added;  // or null
    Brain16* to;

    INLINE Floats begin(std::int64_t row, int v) const {
        const std::int64_t place = column + 16 * v;
        const Floats base = bias == nullptr ? all(0.0f) : load(bias + place);
        return added == nullptr ? base : base + widen(added + row * channels + place);
    }
    template <int V>
    INLINE void finish(std::int64_t row, const Floats (&sum)[V]) const {
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) write(to + row * channels + column + 16 * v, sum[v]);
    }
};

void forward(const GatedSizes& s, const GatedLayer& layer, std::int64_t job) {
    const std::int64_t R = s.channels, batch = job / s.segments();
    const std::int64_t start = job % s.segments() * s.segment;
    const std::int64_t end = smaller(start + s.segment, s.time);
    alignas(64) Brain16 z[TILE * MOST_GATED_CHANNELS];
    Conditions conditions;
    for (std::int64_t begin = start; begin < end; begin += TILE) {
        const std::int64_t rows = smaller(end - begin, TILE), row = batch * s.time + begin;
        const Brain16* const x = layer.x + (batch * (s.padding + s.time) + s.padding + begin) * R;
        find_conditions(s, layer, batch, begin, rows, conditions);
        const Left left = {x - (s.taps - 1) * layer.dilation * R, R, 2, R / 2, s.taps,
                           layer.dilation * R};
        Brain16* const factors = layer.factors + row * 2 * R;
        if (s.linear)
            multiply_all(Gates<true>{left, layer.gate, 0, R, layer.gate_bias, &conditions, factors, z},
                      rows, 2 * R);
        else
            multiply_all(Gates<false>{left, layer.gate, 0, R, layer.gate_bias, &conditions, factors, z},
                      rows, 2 * R);
        for (std::int64_t i = 0; i < rows; ++i)
            std::memcpy(layer.z + ((row + i) * s.layers + layer.index) * R, z + i * R,
                        sizeof(Brain16) * static_cast<std::size_t>(R));
        if (layer.last) continue;
        multiply_all(Added{rows_of(z, R), layer.residual, 0, R, layer.residual_bias, x,
                           layer.next + (x - layer.x)},
                     rows, R);
    }
}

// ---- backwards ----

struct Plain {
    static constexpr bool IN_BLOCKS = false;
    Left left;
    const Brain16* right;
    std::int64_t column, stride;
    float* to;
    bool adds;

    INLINE Floats begin(std::int64_t row, int v) const {
        return adds ? load(to + row * stride + column + 16 * v) : all(0.0f);
    }
    template <int V>
    INLINE void finish(std::int64_t row, const Floats (&sum)[V]) const {
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) store(to + row * stride + column + 16 * v, sum[v]);
    }
};

// to [left columns, right columns] += the sum over pairs of rows, both sides packed.
void add_outer(const Brain16* left, std::int64_t left_columns, const Brain16* right,
               std::int64_t right_columns, std::int64_t rows, float* to, std::int64_t stride) {
    const std::int64_t pairs = (rows + 1) / 2;
    for (std::int64_t column = 0; column < left_columns; column += 32) {
        const std::int64_t width = smaller(left_columns - column, 32);
        const Left part = {left + column * 2 * pairs, 2, 2 * width, pairs, 1, 0};
        multiply_all(Plain{part, right, 0, stride, to + column * stride, true}, width, right_columns);
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
                Floats d = widen(dz + i * s.layers * R + c);
                if (through != nullptr) d = d + load(through + i * R + c);
                const Floats product = f * g;
                const Floats df = d * (g - product * f), dg = d * (product - product * g);
                _mm512_storeu_si512(da + i * 2 * R + 2 * c, narrow(df, dg));
                write(z + i * R + c, product);
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
        for (std::int64_t i = 0; i < rows; ++i) sum = sum + widen(from + i * columns + c);
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
        const Brain16* const dx = layer.dx + (batch * s.time + begin) * R;
        if (!layer.last)
            multiply_all(Plain{rows_of(dx, R), layer.residual_back, 0, R, through, false}, rows, R);
        const auto open = s.linear ? open_backwards<true> : open_backwards<false>;
        open(s, layer, batch, begin, rows, layer.last ? nullptr : through, z);
        if (layer.last) continue;
        pack(dx, R, rows, R, left);
        pack(z, R, rows, R, right);
        add_outer(left, R, right, R, rows, sums, R);
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
        const Left later = {da + context * 2 * R, 2 * R, 2, R, s.taps, -layer.dilation * 2 * R};
        multiply_all(Added{later, layer.gate_back, 0, R, nullptr, layer.last ? nullptr : dx, dx},
                     rows, R);
        pack(da, 2 * R, rows, 2 * R, left);
        for (std::int64_t tap = 0; tap < s.taps; ++tap) {
            pack(x + (tap * layer.dilation - context) * R, R, rows, R, right);
            add_outer(left, 2 * R, right, R, rows, sums + tap * R, s.taps * R);
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
