// What this machine lets the engine use: instruction sets, and processors.
//
// An instruction set counts only if three agree: the compiler made its kernel, the processor has
// it (CPUID), and the operating system saves its registers when it switches threads (XCR0). A set
// that the processor has and the system does not save would compute garbage, not fail.

#pragma once

namespace wavewn {

// WaveNet's, best first, and then two that only one-pass models have (`onepass_sets` in onepass.cpp).
// Each but `portable` is one of x86-64 processors.
enum class InstructionSet : int { avx512_fp16, amx, avx512, avx2, portable, avx512_bf16, amx_bf16 };
constexpr int WAVENET_SETS = 5;
constexpr int INSTRUCTION_SETS = 7;

// "avx512-fp16", "amx", "avx512", "avx2", "portable", "avx512-bf16", "amx-bf16".
const char* name_of(InstructionSet set) noexcept;

// "" if kernels of this set can run here, else the reason in plain words. AMX may be refused still
// when it is asked for: see request_amx.
const char* why_not(InstructionSet set) noexcept;

// Linux lends the tiles of AMX (8 KiB of registers) only to processes that ask. Asks, for all
// threads of the process, those to come too; returns "" or the reason of the refusal. Asking
// again is allowed. Call it before the first AMX kernel and never for other kernels: with the
// permission, every signal frame becomes larger.
const char* request_amx() noexcept;

// How many threads of this process can run at once: the processors that its affinity mask names,
// or fewer where a cgroup (version 1 or 2) has a quota of CPU time; at least 1.
//
// root: where proc and sys are looked for; "/" but in tests.
int usable_cpus(const char* root = "/");

}  // namespace wavewn
