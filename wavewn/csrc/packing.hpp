// From plain matrices to a network: one arena, in the order of use, every piece on its cache line.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "network.hpp"

namespace wavewn {

// A matrix [inputs, outputs] with its bias as engine/weights.py has them, borrowed for the packing.
// Either `floats` or `whole` is there.
struct Plain {
    const float* floats = nullptr;
    const std::int8_t* whole = nullptr;
    const float* bias = nullptr;
    const float* scale = nullptr;  // [outputs], with `whole`: of a sum
    int inputs = 0, outputs = 0;
    const float* gain = nullptr;   // [inputs], with `whole`: from an input to its integer
    bool is_signed = true;         // with `whole`
    bool is_fine = false;          // with `whole`
    float unit = 1;                // a power of two that results come multiplied by
};

// Where each packed column or row comes from: an index of the plain matrix, or NOTHING.
constexpr int NOTHING = -1;
using Sources = std::vector<int>;

// 0, 1, ..., count - 1, then NOTHING up to a multiple.
Sources in_order(int count, int multiple);

// Columns of `layers` gates of R tanh and R sigmoid outputs each: 16 of one, 16 of the other, ...
Sources gate_columns(int residual, int layers);

// Rows of `taps` times `channels` inputs, each tap padded to a multiple.
Sources tap_rows(int channels, int taps, int multiple);

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, Free>;

// Memory of so many bytes on a boundary of 64.
Memory aligned(std::size_t bytes);

// Collects the arena of one network. The pointers inside `network` are set by `finish`.
class Packing {
   public:
    Network network{};
    bool half = false;    // float16 is stored as such, not as rounded float32
    int raised = 128;     // what the set adds to signed int8 inputs

    void put(Product&, const Plain&, const Sources& rows, const Sources& columns);
    void put(const float*& field, const float* values, std::size_t count);
    Memory finish(std::size_t& bytes);

   private:
    template <class T>
    void keep(const T*& field, const std::vector<T>& values);
    void keep(const void** field, const void* from, std::size_t bytes);

    std::vector<unsigned char> arena_;
    std::vector<std::pair<const void**, std::size_t>> fields_;
};

}  // namespace wavewn
