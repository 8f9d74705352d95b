// One-pass models for avx2; see onepass.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET avx2
#include "onepass_kernel.hpp"
