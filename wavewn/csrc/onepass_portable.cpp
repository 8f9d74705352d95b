// One-pass models for portable; see onepass.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET portable
#include "onepass_kernel.hpp"
