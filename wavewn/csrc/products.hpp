// y = init + x @ matrix, for each precision: the loop in which all the time goes.
//
// The outputs of a block stay in registers while the inputs pass by; each weight is read once and
// serves all lanes of the call. A lane's sums have the same order whoever else is there.
//
// Twins: engine/workspace.py, affine; for lower precisions engine/twin.py.

#pragma once

#include "network.hpp"
#include "precisions.hpp"
#include "tiles.hpp"
#include "vectors.hpp"

namespace wavewn {
namespace WAVEWN_SET {

// Sums that fit into the registers of a set, in vectors of sixteen, beside weights and inputs.
#if defined(__AVX512F__)
constexpr int MOST_SUMS = 24;
#elif defined(__aarch64__)
constexpr int MOST_SUMS = 6;
#elif defined(__AVX2__)
constexpr int MOST_SUMS = 5;
#else
constexpr int MOST_SUMS = 3;
#endif

// What becomes of the results of a block: V vectors of row n, `first` of them before.

// y[n] = result
struct Put {
    float* const* y;
    template <int V>
    INLINE void operator()(int n, int first, const Floats (&result)[V]) const {
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) store(y[n] + 16 * (first + v), result[v]);
    }
};

// y[n] += result
struct Add {
    float* const* y;
    template <int V>
    INLINE void operator()(int n, int first, const Floats (&result)[V]) const {
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            float* const to = y[n] + 16 * (first + v);
            store(to, load(to) + result[v]);
        }
    }
};

// Which inputs a pass takes: all of them; or the first ones, and the sums are kept; or the others,
// and it begins with what was kept.
enum class Part { all, first, rest };

struct Nothing {};  // is done with sums that are kept

// init[n] + x[n] @ block, for V vectors of a block of `width`, `begin` of them before.
//
// x:      [N] operands of p.inputs
// init:   [N] rows of the whole product
// kept:   [N] rows of the whole product's sums
// cut:    groups of inputs that are the first part
// result: V vectors of [N][ROOM], `at` of them before
template <class P, int V, int N, Part PART, int ROOM>
INLINE void multiply_slice(const Product& p, int first, int width, int begin,
                           const typename P::Input* const* x, const float* const* init,
                           float* const* kept, int cut, Floats (&result)[N][ROOM], int at) {
    const int from = PART == Part::rest ? cut : 0;
    const int groups = PART == Part::first ? cut : p.inputs / P::GROUP;
    const int step = width * 16 * P::GROUP;
    const auto* w = static_cast<const typename P::Weight*>(p.weights) +
                    std::int64_t(first) * 16 * p.inputs + from * step + begin * 16 * P::GROUP;
    typename P::Sums sums[N][V];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            const int vector = first + begin + v;
            if constexpr (PART == Part::rest)
                sums[n][v] = P::kept(kept[n] + P::KEPT * vector);
            else
                sums[n][v] = P::start(p, vector, init[n] + 16 * vector);
        }
    for (int k = from; k < groups; ++k) {
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            const auto weight = P::read(w + v * 16 * P::GROUP);
#pragma GCC unroll 4
            for (int n = 0; n < N; ++n)
                P::meet(sums[n][v], weight, P::spread(p, x[n] + k * P::GROUP));
        }
        w += step;
        if constexpr (P::CHUNK > 0)
            if ((k + 1) % P::CHUNK == 0)
                for (auto& row : sums)
                    for (auto& sum : row) P::flush(sum);
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            const int vector = first + begin + v;
            if constexpr (PART == Part::first)
                P::keep(sums[n][v], kept[n] + P::KEPT * vector);
            else
                result[n][at + v] = P::finish(p, vector, sums[n][v], init[n] + 16 * vector);
        }
}

// The block's last LEFT vectors, V of them at a time: `use` gets each V together. Where not as many
// sums fit into registers (MOST), vectors are made one by one.
template <class P, int V, int MOST, int N, Part PART, int LEFT, class Use>
INLINE void multiply_slices(const Product& p, int first, int width,
                            const typename P::Input* const* x, const float* const* init,
                            float* const* kept, int cut, const Use& use) {
    constexpr int NOW = V < LEFT ? V : LEFT, STEP = MOST < NOW ? 1 : NOW;
    const int begin = width - LEFT;
    Floats result[N][NOW];
#pragma GCC unroll 2
    for (int v = 0; v < NOW; v += STEP)
        multiply_slice<P, STEP, N, PART>(p, first, width, begin + v, x, init, kept, cut, result, v);
    if constexpr (PART != Part::first)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) use(n, first + begin, result[n]);
    if constexpr (NOW < LEFT)
        multiply_slices<P, V, MOST, N, PART, LEFT - NOW>(p, first, width, x, init, kept, cut, use);
}

// init[n] + x[n] @ block, for a block of V vectors from `first` on. It is cut into slices of about
// the same width, whose sums stay in registers until `use` has them; the halves of a gate stay
// together.
template <class P, int V, int N, Part PART, class Use>
__attribute__((noinline)) void multiply_block(const Product& p, int first,
                                              const typename P::Input* const* x,
                                              const float* const* init, float* const* kept,
                                              int cut, const Use use) {
    constexpr int ROOM = MOST_SUMS / P::REGISTERS / N, MOST = ROOM < 1 ? 1 : ROOM;
    constexpr int SLICES = (V + MOST - 1) / MOST;
    constexpr int EVEN = ((V + SLICES - 1) / SLICES + 1) / 2 * 2;
    constexpr int SLICE = SLICES == 1 ? V : EVEN > MOST && EVEN > 2 ? EVEN - 2 : EVEN;
    multiply_slices<P, SLICE, MOST, N, PART, V>(p, first, V, x, init, kept, cut, use);
}

template <class P, int N, Part PART = Part::all, class Use>
INLINE void multiply_lanes(const Product& p, const typename P::Input* const* x,
                           const float* const* init, const Use& use, float* const* kept = nullptr,
                           int cut = 0) {
    int v = 0;
    for (; v + BLOCK_VECTORS <= p.vectors; v += BLOCK_VECTORS)
        multiply_block<P, BLOCK_VECTORS, N, PART>(p, v, x, init, kept, cut, use);
    switch (p.vectors - v) {
        case 2: return multiply_block<P, 2, N, PART>(p, v, x, init, kept, cut, use);
        case 4: return multiply_block<P, 4, N, PART>(p, v, x, init, kept, cut, use);
        case 6: return multiply_block<P, 6, N, PART>(p, v, x, init, kept, cut, use);
        default: break;
    }
    if constexpr (PART == Part::all)  // parts are of gates, whose vectors are pairs
        switch (p.vectors - v) {
            case 1: return multiply_block<P, 1, N, PART>(p, v, x, init, kept, cut, use);
            case 3: return multiply_block<P, 3, N, PART>(p, v, x, init, kept, cut, use);
            case 5: return multiply_block<P, 5, N, PART>(p, v, x, init, kept, cut, use);
            case 7: return multiply_block<P, 7, N, PART>(p, v, x, init, kept, cut, use);
            default: return;
        }
}

// Any number of rows; `Use` holds an array of a row's pointers and is moved along.
template <class P, class Use, class Pointer>
INLINE void multiply(const Product& p, const typename P::Input* const* x,
                     const float* const* init, Pointer const* y, int rows) {
    if constexpr (TILES && P::IN_TILES)
        if (rows >= LEAST_TILE_ROWS) {
            // Room lays desks one after another, and lanes of a call are neighbours.
            multiply_by_tiles(p, x[0], x[1] - x[0], init, Use{y}, rows);
            return;
        }
    int n = 0;
    for (; n + 4 <= rows; n += 4) multiply_lanes<P, 4>(p, x + n, init + n, Use{y + n});
    for (; n < rows; ++n) multiply_lanes<P, 1>(p, x + n, init + n, Use{y + n});
}

// kept[n] = the sums of the first `cut` groups of inputs, for any number of rows.
template <class P>
INLINE void multiply_first(const Product& p, const typename P::Input* const* x,
                           const float* const* init, float* const* kept, int cut, int rows) {
    constexpr Part FIRST = Part::first;
    const Nothing use;
    int n = 0;
    for (; n + 4 <= rows; n += 4)
        multiply_lanes<P, 4, FIRST>(p, x + n, init + n, use, kept + n, cut);
    for (; n + 2 <= rows; n += 2)
        multiply_lanes<P, 2, FIRST>(p, x + n, init + n, use, kept + n, cut);
    for (; n < rows; ++n) multiply_lanes<P, 1, FIRST>(p, x + n, init + n, use, kept + n, cut);
}

// What `multiply` does, from where `multiply_first` came to.
template <class P, class Use, class Pointer>
INLINE void multiply_rest(const Product& p, const typename P::Input* const* x,
                          const float* const* init, Pointer const* y, float* const* kept, int cut,
                          int rows) {
    for (int n = 0; n < rows; ++n)
        multiply_lanes<P, 1, Part::rest>(p, x + n, init + n, Use{y + n}, kept + n, cut);
}

}  // namespace WAVEWN_SET
}  // namespace wavewn
