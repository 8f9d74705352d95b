// One-pass models for avx512; see onepass.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET avx512
#include "onepass_kernel.hpp"
