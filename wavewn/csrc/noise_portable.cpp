// Random numbers for portable; see noise.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET portable
#include "noise_kernel.hpp"
