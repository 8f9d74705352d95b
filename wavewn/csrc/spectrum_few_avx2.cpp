// Spectra of up to eight frames for avx2; see spectrum.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET few_avx2
#define WAVEWN_LANES 8
#include "spectrum_kernel.hpp"
