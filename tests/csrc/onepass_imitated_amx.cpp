// One-pass models with the tiles of AMX in memory: what runs on such a processor is run here, but
// for the instructions themselves.

#define WAVEWN_IMITATE_AMX
#define WAVEWN_SET imitated_amx
#include "onepass_kernel.hpp"
