// Waiting for another core for a moment, without the system.
//
// No `#include` of the standard library: see network.hpp.

#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace wavewn {

constexpr int PATIENCE = 4000;  // looks before a thread leaves its core: some 50 microseconds

inline __attribute__((always_inline)) void breathe() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

}  // namespace wavewn
