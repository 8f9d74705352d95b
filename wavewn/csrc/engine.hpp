// A call of the engine: the rows of a batch become lanes, and their states advance or stay.

#pragma once

#include <cstdint>
#include <vector>

#include "network.hpp"
#include "packing.hpp"
#include "workers.hpp"

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

// Memory and threads of one call, kept for the next: a lane, its desk and a copied state for each
// row.
class Room {
   public:
    // cut: layer at which two threads share a lonely stream, or 0.
    Room(const Network&, Kernel, int rows, int threads, int cut);
    bool fits(int rows) const { return rows <= static_cast<int>(lanes_.size()); }

    // Start the threads again if this process has been forked since. May allocate.
    void wake();

    // Advance all rows, or none. Allocates nothing, takes no lock, throws nothing.
    Trouble advance(const Batch&) noexcept;

   private:
    struct Lot {
        int begin, end;  // lanes that run together
    };

    void seat(const Batch&, int row, Lane&, float* state) noexcept;
    static void run_lot(void* room, int index);
    static void run_half(void* room, int side);

    const Network& net_;
    const Kernel kernel_;
    const std::int64_t state_stride_;
    std::vector<Lane> lanes_;
    std::vector<int> order_;  // rows by how far they are ahead
    std::vector<Lot> lots_;
    int frames_ = 0;
    Relay relay_;
    Memory states_, desks_;
    Workers workers_;
};

// The layer at which the weights of a sample fall into halves.
int middle_of(const Network&, const void* arena_end);

}  // namespace wavewn
