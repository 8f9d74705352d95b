// Spectra of up to eight frames for portable; see spectrum.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET few_portable
#define WAVEWN_LANES 8
#include "spectrum_kernel.hpp"
