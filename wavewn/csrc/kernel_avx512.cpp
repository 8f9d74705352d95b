// The network for avx512; see network.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET avx512
#include "kernel.hpp"
