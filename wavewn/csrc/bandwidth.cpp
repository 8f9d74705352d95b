// A plain pass over memory, with the widest loads that the machine has.
//
// The sum is a pretext: it keeps the compiler from leaving the loads out. Compiler vectors of one
// cache line stand for one, two or four registers; the same lines of C++ are compiled for each
// instruction set by the `target` attribute, and the standard library is used outside of them.

#include "bandwidth.hpp"

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <future>
#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

namespace wavewn {
namespace {

typedef std::uint64_t Line __attribute__((vector_size(64)));  // of the cache

using Sum = void (*)(const Line* lines, std::size_t pairs, Line* total);

// total = total + lines[0] + ... + lines[2 * pairs - 1], in two chains: an addition takes one
// cycle, in which no CPU loads more than two lines.
__attribute__((always_inline)) inline void add_lines(const Line* lines, std::size_t pairs,
                                                     Line* total) {
    Line even = *total;
    Line odd = even - even;
    for (std::size_t i = 0; i < pairs; ++i) {
        even += lines[2 * i];
        odd += lines[2 * i + 1];
    }
    *total = even + odd;
}

__attribute__((noinline)) void sum_portable(const Line* lines, std::size_t pairs, Line* total) {
    add_lines(lines, pairs, total);
}

#if defined(__x86_64__)
__attribute__((noinline, target("avx2"))) void sum_avx2(const Line* lines, std::size_t pairs,
                                                        Line* total) {
    add_lines(lines, pairs, total);
}

__attribute__((noinline, target("avx512f"))) void sum_avx512(const Line* lines, std::size_t pairs,
                                                             Line* total) {
    add_lines(lines, pairs, total);
}
#endif

Sum best_sum() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return sum_avx512;
    if (__builtin_cpu_supports("avx2")) return sum_avx2;
#endif
    return sum_portable;
}

struct Free {
    void operator()(Line* block) const { std::free(block); }
};

using Block = std::unique_ptr<Line, Free>;

Block make_block(std::size_t lines) {
    Block block(static_cast<Line*>(std::aligned_alloc(sizeof(Line), lines * sizeof(Line))));
    if (!block) throw std::bad_alloc();
    for (std::size_t i = 0; i < lines; ++i) block.get()[i] = Line{i};  // pages of its own
    return block;
}

// Bytes a second of one thread; the first pass brings the block as near as it stays.
double rate_of(Sum sum, const Line* block, std::size_t lines, double seconds, Line* total) {
    using Clock = std::chrono::steady_clock;
    const std::size_t few = 1 + (std::size_t{1} << 20) / (lines * sizeof(Line));  // between looks
    sum(block, lines / 2, total);
    const Clock::time_point began = Clock::now();
    double passes = 0, took = 0;
    do {
        for (std::size_t i = 0; i < few; ++i) sum(block, lines / 2, total);
        passes += static_cast<double>(few);
        took = std::chrono::duration<double>(Clock::now() - began).count();
    } while (took < seconds);
    return passes * static_cast<double>(lines * sizeof(Line)) / took;
}

}  // namespace

double read_rate(std::int64_t bytes, double seconds, int threads) {
    if (bytes < 1 || !(seconds > 0) || threads < 1) {
        throw std::invalid_argument("read_rate needs bytes, seconds and threads above 0");
    }
    const std::size_t pair = 2 * sizeof(Line);
    const std::size_t lines = (static_cast<std::size_t>(bytes) + pair - 1) / pair * 2;
    const Sum sum = best_sum();
    const std::size_t others = static_cast<std::size_t>(threads - 1);
    std::vector<Block> blocks;
    for (std::size_t i = 0; i <= others; ++i) blocks.push_back(make_block(lines));
    std::vector<std::future<double>> rates;  // declared last: waits for its threads when left
    for (std::size_t i = 0; i < others; ++i) {
        rates.push_back(std::async(std::launch::async, [=, &blocks] {
            Line total = {};
            const double rate = rate_of(sum, blocks[i].get(), lines, seconds, &total);
            *blocks[i] = total;
            return rate;
        }));
    }
    Line total = {};
    double rate = rate_of(sum, blocks[others].get(), lines, seconds, &total);
    *blocks[others] = total;
    for (std::future<double>& other : rates) rate += other.get();
    return rate;
}

}  // namespace wavewn
