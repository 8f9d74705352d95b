// A block of threads, as the kernel sees it: what each thread does, and what they do together.
//
//     each(f)          f(thread) for every thread; no thread sees what another does in it
//     barrier()        everybody has done what stands above, and sees it
//     together()       likewise for the 32 threads of a warp
//     across(x, mask)  the x of the thread whose number differs by the bits of `mask`, in the warp
//     below(x, n)      the x of the thread n below, in the warp; the lowest n keep their own
//     multiply_halves  a matrix product of a warp: see products.hpp
//
// `Own<T>` is a value of which every thread has its own, and which lives on across barriers. On the
// device it is a register, and each(f) is f itself. The host's block (tests/csrc/cuda_host.cpp)
// runs the threads one after another between two of the calls above, so that the same source can be
// tested where there is no GPU. What holds on both: a thread of `each` may read what others write
// only behind a barrier, or `together` where both are of one warp.

#pragma once

#include "shape.hpp"

namespace wavewn {

template <class T>
struct Own {
    T value;
    WAVEWN_DEVICE T& operator[](int) { return value; }
    WAVEWN_DEVICE const T& operator[](int) const { return value; }
};

// Sixteen bytes, the most that a thread loads at once.
struct alignas(16) Word {
    unsigned part[4];
};
struct alignas(8) Pair {
    unsigned part[2];
};

// Arithmetic that must round as it does on the host and in torch: a product, then a sum.
WAVEWN_DEVICE float rounded_product(float a, float b) { return __fmul_rn(a, b); }
WAVEWN_DEVICE float rounded_sum(float a, float b) { return __fadd_rn(a, b); }
WAVEWN_DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }

// 2^x and a / b, within two units of the last place: all that tolerances ask for.
WAVEWN_DEVICE float exp2_of(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
WAVEWN_DEVICE float quotient(float a, float b) { return __fdividef(a, b); }

WAVEWN_DEVICE unsigned short half_of(float x) {
    unsigned short y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}
WAVEWN_DEVICE float float_of(unsigned bits) { return __uint_as_float(bits); }

// Several threads may find the same thing at once.
WAVEWN_DEVICE void mark(int& flag) { *static_cast<volatile int*>(&flag) = 1; }

// Weights from global memory: read once a sample, so nothing of them is worth keeping in L1. The
// order in which these loads are written is the order in which they shall be under way.
WAVEWN_DEVICE Word streamed(const Word* from) {
    Word w;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(w.part[0]), "=r"(w.part[1]), "=r"(w.part[2]), "=r"(w.part[3])
                 : "l"(from));
    return w;
}

struct Block {
    char* memory;  // shared

    WAVEWN_DEVICE int number() const { return static_cast<int>(blockIdx.x); }
    template <class F>
    WAVEWN_DEVICE void each(F f) {
        // Unknown to the compiler, so that it computes what follows from the thread's number anew:
        // it would else keep the addresses of all calls in registers, and weights in memory.
        int thread = static_cast<int>(threadIdx.x);
        asm volatile("" : "+r"(thread));
        f(thread);
    }
    WAVEWN_DEVICE void barrier() { __syncthreads(); }
    WAVEWN_DEVICE void together() { __syncwarp(); }
    template <class T>
    WAVEWN_DEVICE Own<T> across(const Own<T>& x, int mask) {
        return {__shfl_xor_sync(0xffffffffu, x.value, mask)};
    }
    template <class T>
    WAVEWN_DEVICE Own<T> below(const Own<T>& x, int count) {
        return {__shfl_up_sync(0xffffffffu, x.value, static_cast<unsigned>(count))};
    }
    // c += a @ b of halves in the first `busy` warps: mma.m16n8k16, whose fragments the PTX manual
    // draws; a [16, 16], b [16, 8], c [16, 8].
    WAVEWN_DEVICE void multiply_halves(int busy, Own<float> (&c)[4], const Own<Word>& a,
                                       const Own<Pair>& b) {
        if (static_cast<int>(threadIdx.x) >= busy * LANES) return;
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0].value), "+f"(c[1].value), "+f"(c[2].value), "+f"(c[3].value)
            : "r"(a.value.part[0]), "r"(a.value.part[1]), "r"(a.value.part[2]),
              "r"(a.value.part[3]), "r"(b.value.part[0]), "r"(b.value.part[1]));
    }
};

}  // namespace wavewn
