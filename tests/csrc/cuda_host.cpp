// The device code of csrc/cuda, run by the CPU: a block's threads one after another between two of
// the calls that join them. See csrc/cuda/block.hpp, whose twin this is.

#include "cuda_arithmetic.hpp"
#include "shape.hpp"

namespace wavewn {

template <class T>
struct Own {
    T values[Shape::threads];
    T& operator[](int thread) { return values[thread]; }
    const T& operator[](int thread) const { return values[thread]; }
};

inline void mark(int& flag) { flag = 1; }

struct Block {
    char* memory;
    int index;

    int number() const { return index; }
    template <class F>
    void each(F f) {
        for (int thread = 0; thread < Shape::threads; ++thread) f(thread);
    }
    void barrier() {}
    void together() {}
    template <class T>
    Own<T> across(const Own<T>& x, int mask) {
        Own<T> y;
        each([&](int thread) { y[thread] = x[thread ^ mask]; });
        return y;
    }
    template <class T>
    Own<T> below(const Own<T>& x, int count) {
        Own<T> y;
        each([&](int thread) { y[thread] = x[thread % LANES < count ? thread : thread - count]; });
        return y;
    }
    void multiply_halves(int busy, Own<float> (&c)[4], const Own<Word>& a, const Own<Pair>& b) {
        for (int warp = 0; warp < busy; ++warp) {
            const int first = warp * LANES;
            multiply_fragments([&](int lane) { return a[first + lane]; },
                               [&](int lane) { return b[first + lane]; },
                               [&](int lane, int i) -> float& { return c[i][first + lane]; });
        }
    }
};

}  // namespace wavewn

#include "samples.hpp"

using wavewn::Int64;
using wavewn::Shape;

extern "C" {

Int64 wavewn_shared_bytes() { return Shape::shared_bytes; }
Int64 wavewn_state_size() { return Shape::state_size; }
Int64 wavewn_ring_at(int layer) { return Shape::ring_at(layer); }
int wavewn_constants() { return Shape::constants; }

void wavewn_samples(Int64 blocks, const wavewn::Word* weights, const float* constants,
                    float* state, const Int64* clock, const float* gates, const float* upsampled,
                    const float* predictors, const float* noise, const float* forced, float* audio,
                    float* parameters, Int64* broken, Int64 batch, Int64 samples,
                    float temperature, float log_scale_min, float pre_emphasis) {
    const wavewn::Arguments arguments{
        weights, constants, state, clock, gates, upsampled, predictors, noise, forced, audio,
        parameters, broken, batch, samples, temperature, log_scale_min, pre_emphasis};
    // Plain new: with <memory> each of the many compilations takes a seventh longer.
    auto* const memory = new wavewn::Word[Shape::shared_bytes / 16];
    for (Int64 i = 0; i < blocks; ++i) {
        memset(static_cast<void*>(memory), 0xff, Shape::shared_bytes);  // NaN, as a GPU may
        wavewn::Block block{reinterpret_cast<char*>(memory), static_cast<int>(i)};
        wavewn::wavenet_samples<Shape>(block, arguments);
    }
    delete[] memory;
}

}
