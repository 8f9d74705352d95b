// Products of bfloat16 with sums of float32, for AVX512-BF16; see gated_training.hpp.
//
// The right side is packed in pairs of rows, as VDPBF16PS reads them; of the left side a pair at a
// time goes to all lanes. Sums of eight rows and two vectors stay in registers.

#pragma once

#include "gated_training.hpp"
#include "onepass_operands.hpp"
#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {
namespace {

constexpr int GROUP = 8;           // rows whose sums stay in registers, with two vectors each

INLINE std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// ---- bfloat16, beside what `Brain` does with it ----

INLINE Floats widen(__m256i bits16) {
    return {{(NativeFloat)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits16), 16)}};
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
INLINE void multiply(Floats (&sum)[R][V], const Left& left, std::int64_t row,
                     const Brain16* right) {
    constexpr int BASES = (R + 2) / 3;  // of three rows each: an address has no more registers
    for (std::int64_t tap = 0; tap < left.taps; ++tap) {
        const Brain16* base[BASES];
#pragma GCC unroll 4
        for (int b = 0; b < BASES; ++b)
            base[b] = left.from + tap * left.tap + (row + 3 * b) * left.row;
        for (std::int64_t i = 0; i < left.pairs; ++i) {
            Brain::Weights weight[V];
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) weight[v] = Brain::read(right + 32 * v);
            right += 32 * V;
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const Brain::Weights x = Brain::spread(base[r / 3] + (r % 3) * left.row);
#pragma GCC unroll 2
                for (int v = 0; v < V; ++v) sum[r][v] = Brain::meet(weight[v], x, sum[r][v]);
            }
#pragma GCC unroll 4
            for (int b = 0; b < BASES; ++b) base[b] += left.pair;
        }
    }
}

// What the next tile will read, fetched into the second cache a few lines at a time, between the
// products of this one: the prefetchers of the CPU do not see so far.
struct Ahead {
    struct Rows {
        const Brain16* from;
        std::int64_t rows, stride, width;  // in numbers
    };
    Rows parts[2];
    int part = 0;
    std::int64_t at = 0;  // in the first row that is left

    INLINE void fetch() {
        for (int n = 0; n < 16 && part < 2; ++n) {
            Rows& now = parts[part];
            if (now.rows <= 0) {
                ++part;
                continue;
            }
            __builtin_prefetch(now.from + at, 0, 2);
            at += 32;
            if (at < now.width) continue;
            at = 0;
            now.from += now.stride;
            --now.rows;
        }
    }
};

// Each kind of product fetches in `prepare` what it will need at the end, and says in `finish` what
// becomes of its sums. Not inlined: all of them in one function would spill each other's registers.
template <class Product, int V, int R = GROUP>
__attribute__((noinline)) void group(const Product& given, std::int64_t row, std::int64_t rows) {
    if (rows == R) {
        const Product product = given;  // which no store can change
        if (product.ahead != nullptr) product.ahead->fetch();
        Floats sum[R][V];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
            for (int v = 0; v < V; ++v) sum[r][v] = all(0.0f);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) product.prepare(row + r);
        multiply<R, V>(sum, product.left, row, product.right);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) product.template finish<V>(row + r, sum[r]);
        return;
    }
    if constexpr (R > 1) group<Product, V, R - 1>(given, row, rows);
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

// Pairs of rows, interleaved, as the right side of a product.
void pack(const Brain16* from, std::int64_t stride, std::int64_t rows, std::int64_t columns,
          Brain16* to) {
    alignas(64) std::int32_t order[16];  // two numbers each: channel i of a row, and of the next
    for (int i = 0; i < 16; ++i) order[i] = i + (32 + i) * 0x10000;
    const __m512i low = _mm512_load_si512(order);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
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

}  // namespace
}  // namespace WAVEWN_SET
}  // namespace wavewn
