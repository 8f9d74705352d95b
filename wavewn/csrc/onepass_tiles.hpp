// Convolutions in bfloat16 on the tile registers of AMX.
//
//     C[row][output] = bias[output] + sum over taps and inputs of A[row][input] B[input][output]
//
// Up to 32 rows and 32 outputs are in work at once: four tiles of sums, two of rows, two of weights.
// A is the rows' operands where they lie, one output row's window `inputs * stride` from the next; B
// is the panel where it lies: [inputs / 2][vectors][16][2] is just what a tile wants. A row's sums
// have one order whatever rows are beside it, but not that of VDPBF16PS.
//
// 2026-11-22: has run in imitation alone (tests/csrc); so it must give known sums before it is used
// (trial.hpp). Its speed is unmeasured.
//
// Twin: nn/padded.py.

#pragma once

#include "onepass.hpp"
#include "tile_registers.hpp"
#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {

constexpr std::int64_t MOST_TILE_INPUTS = 32, LEAST_TILE_INPUTS = 8;

// Inputs of a tile: the most that all of a layer's tiles can have; 0 where they would be too few.
INLINE std::int64_t tile_inputs(std::int64_t inputs) {
    for (std::int64_t depth = MOST_TILE_INPUTS; depth >= LEAST_TILE_INPUTS; depth -= 2)
        if (inputs % depth == 0) return depth;
    return 0;
}

// 0 to 3: sums, of two groups of rows times two vectors; 4 and 5: rows; 6 and 7: weights.
INLINE TileShapes convolution_shapes(std::int64_t rows, std::int64_t depth) {
    TileShapes shapes;
    for (int tile = 0; tile < 8; ++tile) {
        shapes.rows[tile] = static_cast<std::uint8_t>(tile < 6 ? rows : depth / 2);
        shapes.row_bytes[tile] =
            static_cast<std::uint16_t>(tile == 4 || tile == 5 ? 2 * depth : 64);
    }
    return shapes;
}

// G groups of as many rows as the tiles have, V vectors of outputs; use(row, sums of V vectors).
template <int G, int V, class Tile, class Use>
INLINE void convolve_tiles(const Tile& t, const std::uint16_t* from, std::int64_t depth, int rows,
                           const Use& use) {
    const std::int64_t step = t.inputs * t.stride, row_bytes = 2 * step, weight_bytes = 64 * V;
    const std::uint16_t* w = t.weights;
    LOAD_TILE(0, t.bias, 0);  // the same row again and again
    if constexpr (V == 2) LOAD_TILE(1, t.bias + 16, 0);
    if constexpr (G == 2) LOAD_TILE(2, t.bias, 0);
    if constexpr (G == 2 && V == 2) LOAD_TILE(3, t.bias + 16, 0);
    for (std::int64_t tap = 0; tap < t.taps; ++tap)
        for (std::int64_t i = 0; i < t.inputs; i += depth) {
            const std::uint16_t* const x = from + tap * t.dilation * t.inputs + i;
            LOAD_TILE(4, x, row_bytes);
            LOAD_TILE(6, w, weight_bytes);
            MULTIPLY_BRAIN(0, 4, 6);
            if constexpr (G == 2) {
                LOAD_TILE(5, x + 16 * step, row_bytes);
                MULTIPLY_BRAIN(2, 5, 6);
            }
            if constexpr (V == 2) {
                LOAD_TILE(7, w + 32, weight_bytes);
                MULTIPLY_BRAIN(1, 4, 7);
            }
            if constexpr (G == 2 && V == 2) MULTIPLY_BRAIN(3, 5, 7);
            w += 16 * V * depth;
        }
    alignas(64) float sums[16][V][16];
    STORE_TILE(0, sums[0][0], weight_bytes);
    if constexpr (V == 2) STORE_TILE(1, sums[0][1], weight_bytes);
    for (int row = 0; row < rows; ++row) use(row, sums[row]);
    if constexpr (G == 2) {
        STORE_TILE(2, sums[0][0], weight_bytes);
        if constexpr (V == 2) STORE_TILE(3, sums[0][1], weight_bytes);
        for (int row = 0; row < rows; ++row) use(16 + row, sums[row]);
    }
}

// All rows of a panel: whole tiles by twos, then what is left.
template <int V, class Tile, class Use>
void convolve_by_tiles(const Tile& t, const std::uint16_t* from, std::int64_t rows,
                       std::int64_t depth, const Use& use) {
    const std::int64_t step = t.inputs * t.stride;
    std::int64_t begin = 0;
    const auto further = [&](int row, const float(&sums)[V][16]) { use(begin + row, sums); };
    if (rows >= 16) shape_tiles(convolution_shapes(16, depth));
    for (; begin + 32 <= rows; begin += 32)
        convolve_tiles<2, V>(t, from + begin * step, depth, 16, further);
    if (begin + 16 <= rows) {
        convolve_tiles<1, V>(t, from + begin * step, depth, 16, further);
        begin += 16;
    }
    if (const auto left = static_cast<int>(rows - begin)) {
        shape_tiles(convolution_shapes(left, depth));
        convolve_tiles<1, V>(t, from + begin * step, depth, left, further);
    }
    close_tiles();
}

}  // namespace WAVEWN_SET
}  // namespace wavewn
