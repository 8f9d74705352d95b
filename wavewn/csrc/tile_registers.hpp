// The tile registers of AMX: eight, each up to 16 rows of 64 bytes; a thread's own, from
// `shape_tiles` to `close_tiles`. With WAVEWN_IMITATE_AMX they lie in memory, for tests/csrc.
//
// No `#include` of the standard library's C++ headers: see network.hpp.

#pragma once

#include <cstdint>
#include <cstring>

#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {

// Shapes of the tiles, as the processor reads them.
struct alignas(64) TileShapes {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};
};

#if defined(WAVEWN_IMITATE_AMX)
struct Imitation {
    TileShapes shapes;
    std::uint8_t bytes[8][16][64];
};
inline thread_local Imitation imitation;
INLINE void shape_tiles(const TileShapes& shapes) { imitation.shapes = shapes; }
INLINE void close_tiles() {}
INLINE void ZERO_TILE(int tile) { std::memset(imitation.bytes[tile], 0, 16 * 64); }
INLINE void LOAD_TILE(int tile, const void* from, std::int64_t stride) {
    ZERO_TILE(tile);
    for (int row = 0; row < imitation.shapes.rows[tile]; ++row)
        std::memcpy(imitation.bytes[tile][row], static_cast<const char*>(from) + row * stride,
                    imitation.shapes.row_bytes[tile]);
}
INLINE void STORE_TILE(int tile, void* to, std::int64_t stride) {
    for (int row = 0; row < imitation.shapes.rows[tile]; ++row)
        std::memcpy(static_cast<char*>(to) + row * stride, imitation.bytes[tile][row], 64);
}
// c += a b; unsigned eight times signed eight, four at a time.
INLINE void MULTIPLY_EIGHT(int c, int a, int b) {
    for (int n = 0; n < imitation.shapes.rows[c]; ++n) {
        std::int32_t sums[16];
        std::memcpy(sums, imitation.bytes[c][n], sizeof(sums));
        for (int k = 0; k < imitation.shapes.row_bytes[a]; ++k)
            for (int m = 0; m < 16; ++m)
                sums[m] += imitation.bytes[a][n][k] *
                           static_cast<std::int8_t>(imitation.bytes[b][k / 4][4 * m + k % 4]);
        std::memcpy(imitation.bytes[c][n], sums, sizeof(sums));
    }
}
// The same in bfloat16, two at a time.
INLINE void MULTIPLY_BRAIN(int c, int a, int b) {
    const auto number = [](const std::uint8_t* bytes) {
        std::uint32_t bits = 0;
        std::memcpy(reinterpret_cast<char*>(&bits) + 2, bytes, 2);  // little-endian
        float x;
        std::memcpy(&x, &bits, 4);
        return x;
    };
    for (int n = 0; n < imitation.shapes.rows[c]; ++n) {
        float sums[16];
        std::memcpy(sums, imitation.bytes[c][n], sizeof(sums));
        for (int k = 0; k < imitation.shapes.row_bytes[a] / 2; ++k)
            for (int m = 0; m < 16; ++m)
                sums[m] += number(&imitation.bytes[a][n][2 * k]) *
                           number(&imitation.bytes[b][k / 2][4 * m + 2 * (k % 2)]);
        std::memcpy(imitation.bytes[c][n], sums, sizeof(sums));
    }
}
#else
// Macros, as the number of a tile is part of an instruction.
#define ZERO_TILE(tile) _tile_zero(tile)
#define LOAD_TILE(tile, from, stride) _tile_loadd(tile, from, stride)
#define STORE_TILE(tile, to, stride) _tile_stored(tile, to, stride)
#define MULTIPLY_EIGHT(c, a, b) _tile_dpbusd(c, a, b)
#define MULTIPLY_BRAIN(c, a, b) _tile_dpbf16ps(c, a, b)
INLINE void shape_tiles(const TileShapes& shapes) { _tile_loadconfig(&shapes); }
INLINE void close_tiles() { _tile_release(); }
#endif

}  // namespace WAVEWN_SET
}  // namespace wavewn
