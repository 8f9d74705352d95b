// The network with the float16 products of AVX512-FP16, imitated operation by operation: what runs
// on such a processor is run here, but for the instructions themselves.

#define WAVEWN_IMITATE_FP16
#define WAVEWN_SET imitated_fp16
#include "kernel.hpp"
