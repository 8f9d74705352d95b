// Random numbers for avx2; see noise.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET avx2
#include "noise_kernel.hpp"
