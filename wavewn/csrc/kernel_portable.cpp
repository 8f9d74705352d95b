// The network for portable; see network.hpp. The flags are in CMakeLists.txt.

#define WAVEWN_SET portable
#include "kernel.hpp"
