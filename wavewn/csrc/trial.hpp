// A convolution of small numbers, whose sums every right kernel gives exactly: for kernels that run
// where nobody has seen them run (AMX), and for tests/csrc.

#pragma once

#include <cstdint>

#include "onepass.hpp"

namespace wavewn {

struct Trial {
    std::int64_t inputs, outputs, taps, dilation, stride, rows;
};

// Whether a kernel of bfloat16 gives every sum, and the same when rows are made seven at a time.
bool passes(const OnePassKernels&, const Trial&);

// "", or why AMX's tiles are not to be trusted here. After request_amx only.
const char* distrust_tiles();

}  // namespace wavewn
