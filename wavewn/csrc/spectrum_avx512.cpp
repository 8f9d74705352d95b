// Levelling for avx512; see spectrum.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET avx512
#include "spectrum_kernel.hpp"
