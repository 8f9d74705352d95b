// How fast this machine reads memory: the bound that the kernel is compared with.
#pragma once

#include <cstdint>

namespace wavewn {

// Bytes a second that `threads` threads together read, each going again and again through a
// block of `bytes` of its own, for `seconds` or one pass at least.
//
// A matrix times a vector reads each weight once and does one multiplication with it, so no
// kernel that reads such a footprint for every sample is faster than this pass over it, wherever
// in the caches it lies.
//
// Allocates and starts threads. Throws std::invalid_argument where an argument is not positive
// and std::bad_alloc or std::system_error where there is no memory or no thread.
double read_rate(std::int64_t bytes, double seconds, int threads);

}  // namespace wavewn
