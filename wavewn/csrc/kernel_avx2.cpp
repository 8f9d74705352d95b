// The network for avx2; see network.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET avx2
#include "kernel.hpp"
