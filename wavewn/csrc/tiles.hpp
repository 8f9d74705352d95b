// Eight for many lanes at once on AMX: a product of sixteen rows in the tile registers.
//
//     C[n][m] += sum_k A[n][k] B[k][m]      n: lanes, 64 inputs and 16 outputs at a time
//
// A is the lanes' operands where they lie, one desk after another; B is the packed matrix where it
// lies: [inputs / 4][16][4] is just what a tile wants. The sums are exact, so the bits are those of
// every other set. What is left of the inputs after whole tiles goes through two shorter tiles.
//
// Tiles belong to the thread, from `open_tiles` to `close_tiles`.
//
// Twin: engine/twin.py, `int8_product`.

#pragma once

#include "network.hpp"
#include "precisions.hpp"
#if defined(__AMX_INT8__) || defined(WAVEWN_IMITATE_AMX)
#include "tile_registers.hpp"
#endif
#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {

constexpr int LEAST_TILE_ROWS = 4;  // fewer lanes are as fast without

#if defined(__AMX_INT8__) || defined(WAVEWN_IMITATE_AMX)

constexpr int TILE_INPUTS = 64;

// 0 and 1: sums of two vectors; 2: inputs; 3: weights; 4 and 5: the same of what is left.
INLINE TileShapes tile_shapes(int lanes, int left) {
    TileShapes shapes;
    for (int tile = 0; tile < 6; ++tile) {
        const bool weights = tile == 3 || tile == 5, rest = tile >= 4;
        shapes.rows[tile] = static_cast<std::uint8_t>(!weights ? lanes : rest ? left / 4 : 16);
        shapes.row_bytes[tile] = static_cast<std::uint16_t>(tile == 4 ? left : 64);
    }
    return shapes;
}

INLINE void open_tiles(int lanes) { shape_tiles(tile_shapes(lanes, 4)); }

// One or two (V) vectors of outputs from `first` on; `w` is their place in a block of `width` vectors.
template <int V, class Use>
INLINE void multiply_tiles(const Product& p, const std::uint8_t* x, std::int64_t stride,
                           const std::int8_t* w, int width, int first, const float* const* init,
                           const Use& use, int rows) {
    alignas(64) std::int32_t sums[V][MOST_LANES][16];
    const std::int64_t row = 64 * std::int64_t(width);  // four inputs of all outputs of the block
    const int whole = p.inputs / TILE_INPUTS;
    ZERO_TILE(0);
    ZERO_TILE(1);
    for (int k = 0; k < whole; ++k) {
        LOAD_TILE(2, x + k * TILE_INPUTS, stride);
        LOAD_TILE(3, w + 16 * k * row, row);
        MULTIPLY_EIGHT(0, 2, 3);
        if constexpr (V == 2) {
            LOAD_TILE(3, w + 16 * k * row + 64, row);
            MULTIPLY_EIGHT(1, 2, 3);
        }
    }
    if (p.inputs % TILE_INPUTS != 0) {
        LOAD_TILE(4, x + whole * TILE_INPUTS, stride);
        LOAD_TILE(5, w + 16 * whole * row, row);
        MULTIPLY_EIGHT(0, 4, 5);
        if constexpr (V == 2) {
            LOAD_TILE(5, w + 16 * whole * row + 64, row);
            MULTIPLY_EIGHT(1, 4, 5);
        }
    }
    STORE_TILE(0, sums[0], 64);
    if constexpr (V == 2) STORE_TILE(1, sums[1], 64);
    for (int n = 0; n < rows; ++n) {
        Floats result[V];
        for (int v = 0; v < V; ++v) {
            const Ints sum = load(sums[v][n]) + load(p.shift + 16 * (first + v));
            result[v] = Eight::finish(p, first + v, sum, init[n] + 16 * (first + v));
        }
        use(n, first, result);
    }
}

// All outputs of `rows` lanes whose operands lie `stride` bytes apart; tiles are open for so many.
template <class Use>
void multiply_by_tiles(const Product& p, const std::uint8_t* x, std::int64_t stride,
                       const float* const* init, const Use& use, int rows) {
    if (const int left = p.inputs % TILE_INPUTS) shape_tiles(tile_shapes(rows, left));
    const auto* w = static_cast<const std::int8_t*>(p.weights);
    for (int first = 0; first < p.vectors; first += BLOCK_VECTORS) {
        const int width = p.vectors - first < BLOCK_VECTORS ? p.vectors - first : BLOCK_VECTORS;
        int v = 0;
        for (; v + 2 <= width; v += 2)
            multiply_tiles<2>(p, x, stride, w + 64 * v, width, first + v, init, use, rows);
        if (v < width)
            multiply_tiles<1>(p, x, stride, w + 64 * v, width, first + v, init, use, rows);
        w += std::int64_t(width) * 16 * p.inputs;
    }
}

constexpr bool TILES = true;
#else
constexpr bool TILES = false;
INLINE void open_tiles(int) {}
INLINE void close_tiles() {}
template <class Use>
void multiply_by_tiles(const Product&, const void*, std::int64_t, const float* const*, const Use&,
                       int) {}
#endif

}  // namespace WAVEWN_SET
}  // namespace wavewn
