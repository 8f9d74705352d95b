// Random numbers for avx512; see noise.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET avx512
#include "noise_kernel.hpp"
