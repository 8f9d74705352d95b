// What spectra are made with: the kernels of each instruction set, tables, and scratch.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "cpu.hpp"
#include "packing.hpp"
#include "spectrum.hpp"

namespace wavewn {

// The sets that spectra have kernels for, best first.
struct SpectrumSet {
    InstructionSet set;
    const SpectrumKernels* kernels;  // null where they were not compiled in
    const SpectrumKernels* few;      // of up to FEW_FRAMES frames; likewise

    const SpectrumKernels& of(std::int64_t frames) const {
        return frames <= FEW_FRAMES && few != nullptr ? *few : *kernels;
    }
};
constexpr int SPECTRUM_SETS = 3;
extern const SpectrumSet spectrum_sets[SPECTRUM_SETS];

// Whether there is a transform of so many real samples: an even number of 2s, 3s and 5s.
bool can_transform(std::int64_t length);

// The tables of a transform.
class TransformTables {
   public:
    explicit TransformTables(std::int64_t length);
    TransformTables(const TransformTables&) = delete;
    TransformTables& operator=(const TransformTables&) = delete;
    const Transform& transform() const { return transform_; }

   private:
    Transform transform_{};
    std::vector<std::vector<float>> turns_;
};

// A matrix whose rows reach few inputs, all of them neighbours.
class SparseMatrix {
   public:
    // from: [inputs, outputs].
    SparseMatrix(const float* from, std::int64_t inputs, std::int64_t outputs);
    SparseMatrix(const SparseMatrix&) = delete;
    SparseMatrix& operator=(const SparseMatrix&) = delete;
    const Reach* rows() const { return rows_.data(); }

   private:
    std::vector<float> weights_;
    std::vector<Reach> rows_;
};

// Bytes of so many floats, up to a boundary of 64.
inline std::size_t size_of(std::int64_t floats) {
    return (static_cast<std::size_t>(floats) * sizeof(float) + 63) / 64 * 64;
}

// Hands out an arena piece by piece; without one it only counts.
class Pieces {
   public:
    explicit Pieces(char* arena) : begin_(arena), next_(arena) {}

    float* take(std::int64_t floats) {
        char* const here = next_;
        bytes_ += size_of(floats);
        if (begin_ != nullptr) next_ = begin_ + bytes_;
        return reinterpret_cast<float*>(here);
    }
    std::size_t bytes() const { return bytes_; }

   private:
    char* const begin_;
    char* next_;
    std::size_t bytes_ = 0;
};

// Entry of a state: how many of its newest rows are needed now, how many it holds, and where it
// begins, in floats. One that holds no row is not there.
struct Kept {
    std::int64_t rows, held, state;
};

constexpr std::int64_t MOST_ROWS = std::int64_t{1} << 32;  // so that no size overflows

// Throw std::invalid_argument where what Python worked out leaves what it is given.
void check_numbers(bool good);
void check_kept(const Kept&, std::int64_t channels, std::int64_t state_floats);

// Puts the rows that were kept before the new ones, and remembers the newest: Flow._join. Returns
// where they lie: in `to`, or, if none was kept, where they came from.
inline const float* join(float* to, float* past, const Kept& kept, const float* from,
                         std::int64_t rows, std::int64_t channels) {
    const auto copied = [&](float* here, const float* there, std::int64_t count) {
        if (count > 0)
            std::memcpy(here, there, static_cast<std::size_t>(count * channels) * sizeof(float));
    };
    const float* joined = from;
    if (kept.rows > 0) {
        copied(to, past + (kept.held - kept.rows) * channels, kept.rows);
        copied(to + kept.rows * channels, from, rows);
        joined = to;
    }
    const std::int64_t newest = std::min(kept.held, kept.rows + rows);
    copied(past + (kept.held - newest) * channels,
           joined + (kept.rows + rows - newest) * channels, newest);
    return joined;
}

}  // namespace wavewn
