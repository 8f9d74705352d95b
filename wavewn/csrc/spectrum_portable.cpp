// Levelling for portable; see spectrum.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET portable
#include "spectrum_kernel.hpp"
