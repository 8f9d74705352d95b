// The device code of csrc/cuda, run by as many threads as a block has, under ThreadSanitizer: a
// barrier too few would be a race. (tests/csrc/cuda_host.cpp runs them one after another, which
// hides that.)
//
// Usage: cuda_threads ARGUMENTS, a file of the kernel's arguments in their order: int64 bytes
// followed by so many bytes. Writes the audio to stdout.

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <memory>
#include <thread>
#include <vector>

#include "cuda_arithmetic.hpp"
#include "shape.hpp"

namespace wavewn {

template <class T>
struct Own {
    T value;
    T& operator[](int) { return value; }
    const T& operator[](int) const { return value; }
};

inline void mark(int& flag) { __atomic_store_n(&flag, 1, __ATOMIC_RELAXED); }

// What the threads of a block share beside its memory.
struct Meeting {
    pthread_barrier_t all, warps[Shape::warps];
    alignas(16) char exchanged[Shape::threads][32];
};

struct Block {
    char* memory;
    Meeting* meeting;
    int thread;

    int number() const { return 0; }
    template <class F>
    void each(F f) {
        f(thread);
    }
    void barrier() {
#ifndef WITHOUT_BARRIERS
        pthread_barrier_wait(&meeting->all);
#endif
    }
    void together() { pthread_barrier_wait(&meeting->warps[thread / LANES]); }
    // Show `x` to the warp, look at others', and wait until all have looked.
    template <class T, class F>
    void exchange(const T& x, F look) {
        static_assert(sizeof(T) <= sizeof meeting->exchanged[0]);
        memcpy(meeting->exchanged[thread], &x, sizeof x);
        together();
        look();
        together();
    }
    template <class T>
    T shown(int of) const {
        T x;
        memcpy(&x, meeting->exchanged[of], sizeof x);
        return x;
    }
    template <class T>
    Own<T> across(const Own<T>& x, int mask) {
        Own<T> y;
        exchange(x.value, [&] { y.value = shown<T>(thread ^ mask); });
        return y;
    }
    template <class T>
    Own<T> below(const Own<T>& x, int count) {
        Own<T> y;
        const int from = thread % LANES < count ? thread : thread - count;
        exchange(x.value, [&] { y.value = shown<T>(from); });
        return y;
    }
    void multiply_halves(int busy, Own<float> (&c)[4], const Own<Word>& a, const Own<Pair>& b) {
        if (thread >= busy * LANES) return;
        struct Both {
            Word a;
            Pair b;
        };
        const int first = thread / LANES * LANES;
        float sums[LANES][4] = {};
        exchange(Both{a.value, b.value}, [&] {
            multiply_fragments([&](int lane) { return shown<Both>(first + lane).a; },
                               [&](int lane) { return shown<Both>(first + lane).b; },
                               [&](int lane, int i) -> float& { return sums[lane][i]; });
        });
        for (int i = 0; i < 4; ++i) c[i].value += sums[thread % LANES][i];
    }
};

}  // namespace wavewn

#include "samples.hpp"

using wavewn::Int64;
using wavewn::Shape;

static std::vector<char> read(FILE* file) {
    Int64 bytes = 0;
    if (fread(&bytes, sizeof bytes, 1, file) != 1) abort();
    std::vector<char> data(static_cast<size_t>(bytes));
    if (bytes && fread(data.data(), 1, data.size(), file) != data.size()) abort();
    return data;
}

int main(int count, char** names) {
    FILE* const file = count == 2 ? fopen(names[1], "rb") : nullptr;
    if (file == nullptr) return 1;
    std::vector<std::vector<char>> data;
    for (int i = 0; i < 17; ++i) data.push_back(read(file));
    fclose(file);
    auto pointer = [&](int i) { return static_cast<void*>(data[i].empty() ? nullptr : &data[i][0]); };
    auto floats = [&](int i) { return static_cast<float*>(pointer(i)); };
    auto integers = [&](int i) { return static_cast<Int64*>(pointer(i)); };
    const wavewn::Arguments arguments{
        static_cast<wavewn::Word*>(pointer(0)), floats(1), floats(2), integers(3), floats(4),
        floats(5), floats(6), floats(7), floats(8), floats(9), floats(10), integers(11),
        *integers(12), *integers(13), *floats(14), *floats(15), *floats(16)};

    std::unique_ptr<wavewn::Word[]> memory(new wavewn::Word[Shape::shared_bytes / 16]);
    wavewn::Meeting meeting;
    pthread_barrier_init(&meeting.all, nullptr, Shape::threads);
    for (auto& warp : meeting.warps) pthread_barrier_init(&warp, nullptr, wavewn::LANES);
    std::vector<std::thread> threads;
    for (int i = 0; i < Shape::threads; ++i)
        threads.emplace_back([&, i] {
            wavewn::Block block{reinterpret_cast<char*>(memory.get()), &meeting, i};
            wavewn::wavenet_samples<Shape>(block, arguments);
        });
    for (auto& thread : threads) thread.join();
    fwrite(floats(9), 1, data[9].size(), stdout);  // the audio
    return 0;
}
