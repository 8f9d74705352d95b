// The network for amx; see network.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET amx
#include "kernel.hpp"
