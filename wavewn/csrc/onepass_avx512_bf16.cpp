// One-pass models for avx512_bf16; see onepass.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET avx512_bf16
#include "onepass_kernel.hpp"
