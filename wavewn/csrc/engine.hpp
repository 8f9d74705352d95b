// A call of the engine: the rows of a batch become lanes, and their states advance or stay.

#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "network.hpp"
#include "packing.hpp"

namespace wavewn {

// Arrays of the caller's; sizes are checked in bindings.cpp.
struct Batch {
    int rows;
    int frames;
    std::int64_t samples;  // that the row which gives most will give
    float* state;          // [rows, state_size]
    std::int64_t* clock;   // [rows]
    const float* mel;      // [rows, bands, frames]
    const float* noise;    // [rows, samples, draws], from each row's first sample on; or null
    const float* forced;   // [rows, samples], each row's at the end; or null
    const std::int64_t* speaker;  // [rows] or null
    float temperature;
    float* audio;       // [rows, samples], each row's at the end; or null
    float* parameters;  // [rows, samples, parameter_count], likewise; or null
};

// The first sample, counted since the row's stream began, whose parameters are not finite; row -1
// says that there is none.
struct Trouble {
    int row = -1;
    std::int64_t sample = 0;
};

// Memory of one call, kept for the next of its size: a lane and a copied state for each row, and
// desks for the lanes that run at once.
class Room {
   public:
    Room(const Network&, int rows);
    bool fits(int rows) const { return rows <= static_cast<int>(lanes_.size()); }

    // Advance all rows, or none. Allocates nothing, throws nothing.
    Trouble advance(const Network&, Run, const Batch&) noexcept;

   private:
    void seat(const Network&, const Batch&, int row, Lane& lane, float* state) noexcept;

    std::int64_t state_stride_;
    std::vector<Lane> lanes_;
    std::vector<int> order_;  // rows by how far they are ahead
    Memory states_, desks_;
};

}  // namespace wavewn
