// Levelling for avx2; see spectrum.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET avx2
#include "spectrum_kernel.hpp"
