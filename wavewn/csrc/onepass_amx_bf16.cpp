// One-pass models for amx_bf16; see onepass.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET amx_bf16
#include "onepass_kernel.hpp"
