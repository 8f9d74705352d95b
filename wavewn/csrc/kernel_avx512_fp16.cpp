// The network for avx512-fp16; see network.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET avx512_fp16
#include "kernel.hpp"
