// Products of a packed matrix with the operands of a block's streams, tile by tile.
//
// A tile is sixteen outputs by sixteen inputs, and a warp multiplies it with all streams at once.
// Lane 4 g + q holds the weights of outputs g and g + 8 for inputs 4 q to 4 q + 3, in the order
//
//     float16   one word:   g: inputs 0 1 | g + 8: 0 1 | g: 2 3 | g + 8: 2 3     of the four
//     float32   two words:  g: 0 1 2 3; g + 8: 0 1 2 3
//
// The first is the fragment A of mma.m16n8k16 with its inputs renamed (it does not matter to a sum
// which inputs share a lane), so that the operand B, four neighbouring halves of stream g, is one
// load of eight bytes. The tensor core computes eight streams whether there are eight or one, and a
// stream's bits do not depend on the others. In float32 every lane sums its four inputs for each
// stream, and the four lanes of an output add up once, at the end of the product. Either way
// lane 4 g + q ends with outputs g and g + 8 of streams 2 q and 2 q + 1.
//
// Warp w has the tiles w, w + warps, ... of the outputs and goes through their inputs. Weights lie
// in memory as they are fetched: 512 bytes a warp and word, `Shape::ahead` of them before the first
// is needed. What a product needs first is fetched while the product before it runs (`begin`).
// Where a warp has many tiles, as in a large head, it takes a few at a time: each needs registers
// for its sums.
//
// Twin: engine/workspace.py, `affine`. Packing: engine/cuda_packing.py, `tiles_of`.

#pragma once

#include "shape.hpp"

namespace wavewn {

template <class S>
struct Weights {
    static constexpr int words = S::half ? 1 : 2;
    Own<Word> word[words];
};

template <class S>
struct Inputs {
    Own<Pair> halves;
    Own<Word> floats[S::half ? 1 : S::streams];
};

// What a lane has summed of a tile: in float16 outputs (g, g + 8) by streams (2 q, 2 q + 1), in
// float32 the same outputs by all streams, of its own inputs alone.
template <class S>
struct Sums {
    static constexpr int count = S::half ? 4 : 2 * S::streams;
    Own<float> of[count];
};

// Sums of a whole product: outputs g and g + 8 of one tile by streams 2 q and 2 q + 1.
template <class S>
struct Results {
    static constexpr int columns = S::streams == 1 ? 1 : 2;
    Own<float> of[2][columns];
};

// The largest part of `depth` up to `wanted` that divides it and is a multiple of `chains`, so that
// what is summed in which chain does not depend on `wanted`.
WAVEWN_DEVICE constexpr int step_of(int depth, int chains, int wanted) {
    int step = most(least(depth, wanted), chains);
    while (depth % step || step % chains) --step;
    return step;
}

// y [16 TILES] = W x [16 DEPTH], in passes of at most MOST tiles of outputs a warp.
template <class S, int TILES, int DEPTH, int MOST>
struct Product {
    static constexpr int tiles = TILES, depth = DEPTH;
    static constexpr int rounds = (TILES + S::warps - 1) / S::warps;
    static constexpr int own = least(rounds, MOST);
    static constexpr int passes = (rounds + own - 1) / own;
    // Tensor cores answer after some thirty clocks: two sums take turns. Float32 has many at once.
    static constexpr int chains = S::half && DEPTH % 2 == 0 ? 2 : 1;
    static constexpr int step = step_of(DEPTH, chains, S::ahead / own);  // inputs' tiles under way
    static constexpr int size = TILES * DEPTH;                           // tiles in memory

    struct Fetched {
        Weights<S> of[step][own];
    };
    static WAVEWN_DEVICE constexpr int tile_of(int warp, int pass, int i) {
        return warp + (pass * own + i) * S::warps;
    }
    // Warps that have a tile.
    static WAVEWN_DEVICE constexpr int busy(int pass, int i) {
        return least(S::warps, most(TILES - tile_of(0, pass, i), 0));
    }
};

// Where the tiles of a product lie.
struct Source {
    const Word* at;
    bool is_resident;
};

template <class S, class P, class B>
WAVEWN_DEVICE void fetch(B& block, const Source& from, int pass, int i, int k, Weights<S>& to) {
    block.each([&](int thread) {
        const int warp = thread / LANES, lane = thread % LANES;
        if (warp >= P::busy(pass, i)) return;
        const int tile = P::tile_of(warp, pass, i) * P::depth + k;
        const Word* const at = from.at + tile * (LANES * Weights<S>::words) + lane;
        WAVEWN_UNROLL
        for (int j = 0; j < Weights<S>::words; ++j)
            to.word[j][thread] = from.is_resident ? at[LANES * j] : streamed(at + LANES * j);
    });
}

template <class S, class P, class B>
WAVEWN_DEVICE void begin(B& block, const Source& from, int pass, typename P::Fetched& to) {
    WAVEWN_UNROLL
    for (int k = 0; k < P::step; ++k)
        WAVEWN_UNROLL
        for (int i = 0; i < P::own; ++i) fetch<S, P>(block, from, pass, i, k, to.of[k][i]);
}

// Read tile k of an operand; `row` is the distance of two streams, in bytes.
template <class S, class B>
WAVEWN_DEVICE void read_inputs(B& block, const char* operand, int row, int k, Inputs<S>& to) {
    block.each([&](int thread) {
        const int group = thread % LANES / 4, quarter = thread % 4;
        const char* const at = operand + (TILE * k + 4 * quarter) * S::operand_bytes;
        if constexpr (S::half) {
            const Pair none = {{0, 0}};
            to.halves[thread] =
                group < S::streams ? *reinterpret_cast<const Pair*>(at + group * row) : none;
        } else {
            WAVEWN_UNROLL
            for (int n = 0; n < S::streams; ++n)
                to.floats[n][thread] = *reinterpret_cast<const Word*>(at + n * row);
        }
    });
}

template <class S, class B>
WAVEWN_DEVICE void multiply_tile(B& block, int busy, const Weights<S>& w, const Inputs<S>& x,
                                 Sums<S>& sums) {
    if constexpr (S::half) {
        block.multiply_halves(busy, sums.of, w.word[0], x.halves);
    } else {
        block.each([&](int thread) {
            if (thread >= busy * LANES) return;
            WAVEWN_UNROLL
            for (int row = 0; row < 2; ++row)
                WAVEWN_UNROLL
                for (int n = 0; n < S::streams; ++n) {
                    float& sum = sums.of[row * S::streams + n][thread];
                    WAVEWN_UNROLL
                    for (int i = 0; i < 4; ++i)
                        sum = fused(float_of(w.word[row][thread].part[i]),
                                    float_of(x.floats[n][thread].part[i]), sum);
                }
        });
    }
}

template <class S, class B>
WAVEWN_DEVICE void clear(B& block, Sums<S>& sums) {
    block.each([&](int thread) {
        WAVEWN_UNROLL
        for (int i = 0; i < Sums<S>::count; ++i) sums.of[i][thread] = 0;
    });
}

template <class S, class B>
WAVEWN_DEVICE void add(B& block, const Sums<S>& from, Sums<S>& to) {
    block.each([&](int thread) {
        WAVEWN_UNROLL
        for (int i = 0; i < Sums<S>::count; ++i) to.of[i][thread] += from.of[i][thread];
    });
}

// Add a pass of a product to the sums of its tiles; what `begin` fetched is used up. With two
// CHAINS every other input goes to sums of its own: half as many wait for each other.
template <class S, class P, int CHAINS, class B>
WAVEWN_DEVICE void multiply(B& block, const Source& from, int pass, typename P::Fetched& fetched,
                            const char* operand, int row, Sums<S> (&sums)[CHAINS][P::own]) {
    WAVEWN_ROLL
    for (int first = 0; first < P::depth; first += P::step) {
        WAVEWN_UNROLL
        for (int k = 0; k < P::step; ++k) {
            Inputs<S> x;
            read_inputs<S>(block, operand, row, first + k, x);
            WAVEWN_UNROLL
            for (int i = 0; i < P::own; ++i) {
                multiply_tile<S>(block, P::busy(pass, i), fetched.of[k][i], x, sums[k % CHAINS][i]);
                if (first + P::step < P::depth)
                    fetch<S, P>(block, from, pass, i, first + P::step + k, fetched.of[k][i]);
            }
        }
    }
}

// The sum of `low` over the two lanes of a pair; or, SPLIT, of `low` in the lane below and of
// `high` in the one above.
template <bool SPLIT, class B>
WAVEWN_DEVICE Own<float> exchanged(B& block, const Own<float>& low, const Own<float>& high,
                                   int mask) {
    Own<float> kept, given;
    block.each([&](int thread) {
        const bool upper = SPLIT && (thread & mask);
        kept[thread] = upper ? high[thread] : low[thread];
        given[thread] = SPLIT ? (upper ? low[thread] : high[thread]) : low[thread];
    });
    const Own<float> got = block.across(given, mask);
    block.each([&](int thread) { kept[thread] += got[thread]; });
    return kept;
}

// Join what the lanes of an output have summed.
//
// In float32 the lanes two apart add, then the neighbours: (0 + 2) + (1 + 3). Of eight streams each
// keeps the half that it shall end with and gives away the other: twelve exchanges, not 32.
template <class S, class B>
WAVEWN_DEVICE void join(B& block, const Sums<S>& sums, Results<S>& to) {
    constexpr int streams = S::streams, columns = Results<S>::columns;
    WAVEWN_UNROLL
    for (int row = 0; row < 2; ++row) {
        if constexpr (S::half) {
            WAVEWN_UNROLL
            for (int n = 0; n < columns; ++n) to.of[row][n] = sums.of[2 * row + n];
        } else {
            constexpr int some = streams == 8 ? 4 : streams;
            Own<float> pairs[some];
            WAVEWN_UNROLL
            for (int n = 0; n < some; ++n) {
                const int upper = (n + some) % streams;
                pairs[n] = exchanged<streams == 8>(block, sums.of[row * streams + n],
                                                   sums.of[row * streams + upper], 2);
            }
            WAVEWN_UNROLL
            for (int n = 0; n < columns; ++n)
                to.of[row][n] = exchanged<(streams > 2)>(block, pairs[n], pairs[(n + 2) % some], 1);
        }
    }
}

// A pass of a product by itself: result.of[i] for each of the warp's tiles.
template <class S, class P, class B>
WAVEWN_DEVICE void compute(B& block, const Source& from, int pass, typename P::Fetched& fetched,
                           const char* operand, int row, Results<S> (&results)[P::own]) {
    Sums<S> sums[P::chains][P::own];
    WAVEWN_UNROLL
    for (int c = 0; c < P::chains; ++c)
        WAVEWN_UNROLL
        for (int i = 0; i < P::own; ++i) clear(block, sums[c][i]);
    multiply<S, P>(block, from, pass, fetched, operand, row, sums);
    WAVEWN_UNROLL
    for (int i = 0; i < P::own; ++i) {
        if constexpr (P::chains == 2) add(block, sums[1][i], sums[0][i]);
        join<S>(block, sums[0][i], results[i]);
    }
}

}  // namespace wavewn
