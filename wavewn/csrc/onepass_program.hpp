// What a one-pass model is to the kernel: its layers, packed, and the lists of steps of its chunks.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu.hpp"
#include "onepass.hpp"
#include "packing.hpp"
#include "workers.hpp"

namespace wavewn {

// A convolution as Python has it, borrowed for the packing.
struct PlainConvolution {
    const float* weights;  // [taps, inputs, outputs], oldest tap first
    const float* bias;     // [outputs]
    std::int64_t taps, inputs, outputs, dilation, stride;
    LayerKind kind;
};

// The sets that one-pass models have kernels for, best first. That of AMX must pass
// trial.hpp first.
struct OnePassSet {
    InstructionSet set;
    const OnePassKernels* kernels;  // null where they were not compiled in
};
constexpr int ONE_PASS_SETS = 5;
extern const OnePassSet onepass_sets[ONE_PASS_SETS];

class OnePassNetwork {
   public:
    // kernels: of the set that will run it. bfloat16: inputs are even in number then.
    OnePassNetwork(const OnePassKernels& kernels, bool bfloat16,
                   const std::vector<PlainConvolution>& layers);

    OnePassKernel kernel() const { return kernel_; }
    int operand_bytes() const { return bfloat16_ ? 2 : 4; }
    const std::vector<OnePassLayer>& layers() const { return layers_; }

   private:
    const OnePassKernel kernel_;
    const bool bfloat16_;
    std::vector<OnePassLayer> layers_;
    Memory arena_;
};

// The steps of chunks of one size. None of them leaves what it was given: std::invalid_argument.
class OnePassProgram {
   public:
    struct Sizes {
        std::int64_t arena;  // bytes
        std::int64_t state, mel, drive, audio;  // numbers of a stream
    };
    OnePassProgram(const OnePassNetwork&, std::vector<Step> steps, Sizes);

    const Sizes& sizes() const { return sizes_; }

    // One stream; `arena` has sizes().arena bytes on a boundary of 64. Allocates nothing.
    void run(Workers&, char* arena, float* state, const float* mel, const float* drive,
             float* audio) const noexcept;

   private:
    void check(const Step&) const;
    void check_buffer(std::int64_t offset, std::int64_t bytes) const;

    const OnePassNetwork& network_;
    const std::vector<Step> steps_;
    const Sizes sizes_;
};

}  // namespace wavewn
