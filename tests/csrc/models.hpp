// Networks of made-up numbers, the same on every machine.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "network.hpp"
#include "packing.hpp"

namespace driver {

// Numbers that float16 holds exactly, uniform in [-1, 1).
class Numbers {
   public:
    explicit Numbers(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 1) {}
    float next();
    std::vector<float> many(std::size_t count, float scale = 1);

   private:
    std::uint64_t state_;
};

struct Shape {
    std::string name;
    int residual, skip, hidden, taps;
    std::vector<int> dilations;
    int bands, channels, mel_count, mel_taps, look_ahead, hop, speakers;
    wavewn::Upsampling upsampling;
    wavewn::HeadKind head;
    int classes, components, order, longest;
};

// All switches of a configuration are on in at least one of them.
std::vector<Shape> shapes();

// A packed network and the memory that it lies in.
struct Model {
    wavewn::Network network;
    wavewn::Memory arena;
    std::size_t bytes;
};

Model make(const Shape&, wavewn::Precision, const std::string& instruction_set);

}  // namespace driver
