// The floating-point mode of the engine, for as long as a guard lives.
//
// Denormal numbers cost a hundred cycles each and are heard by nobody; and a program around us may
// have set another rounding. So a call sets the whole mode: round to nearest, trap nothing, take
// and make zeros for denormals; and puts back what it found. The mode belongs to the thread.
//
// Half-precision denormals stay: small weights in float16 are such numbers. (x86 never flushes them
// on conversion nor in AVX512-FP16; on ARM that would be FZ16, which is left off.)
//
// Set it around a call to a function of another file: the compiler knows nothing of the mode and
// may move arithmetic of the same function across it.
//
// No `#include` of the standard library: see network.hpp.

#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace wavewn {

class FlushDenormals {
   public:
    FlushDenormals() noexcept : found_(read()) { write(MODE); }
    ~FlushDenormals() { write(found_); }
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;

   private:
#if defined(__x86_64__)
    using Register = unsigned int;
    static constexpr Register MODE = 0x9fc0;  // MXCSR: FTZ, DAZ, all six exceptions masked
    static Register read() noexcept { return _mm_getcsr(); }
    static void write(Register mode) noexcept { _mm_setcsr(mode); }
#elif defined(__aarch64__)
    using Register = unsigned long;
    static constexpr Register MODE = 1ul << 24;  // FPCR: FZ
    static Register read() noexcept {
        Register mode;
        __asm__ __volatile__("mrs %0, fpcr" : "=r"(mode));
        return mode;
    }
    static void write(Register mode) noexcept {
        __asm__ __volatile__("msr fpcr, %0" : : "r"(mode) : "memory");
    }
#else
    using Register = int;
    static constexpr Register MODE = 0;
    static Register read() noexcept { return 0; }
    static void write(Register) noexcept {}
#endif

    Register found_;
};

}  // namespace wavewn
