// Layers and programs of one-pass models as Python holds them; see bindings_onepass.cpp.

#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "cpu.hpp"
#include "onepass_program.hpp"

namespace wavewn {

// weights, bias, dilation, stride, kind
using GivenLayer =
    std::tuple<Array<const float, 3>, Array<const float, 1>, std::int64_t, std::int64_t,
               std::int64_t>;

inline const OnePassKernels& onepass_kernels_of(const std::string& set) {
    for (const OnePassSet& one : onepass_sets)
        if (set == name_of(one.set) && one.kernels != nullptr) return *one.kernels;
    throw std::invalid_argument("no kernel for " + set);
}

// What a call works with, kept for the next one.
struct Desk {
    std::size_t bytes;
    Memory arena;
    std::unique_ptr<Workers> workers;
};

// Layers, and the desks for programs of them: lent to one call after another, under the GIL.
class PackedLayers {
   public:
    PackedLayers(const std::string& set, bool bfloat16, int threads,
                 const std::vector<GivenLayer>& layers)
        : network_(onepass_kernels_of(set), bfloat16, borrowed(layers)), threads_(threads) {}

    const OnePassNetwork& network() const { return network_; }

    Desk take(std::size_t bytes) {
        if (idle_.empty()) return {bytes, aligned(bytes), std::make_unique<Workers>(threads_)};
        Desk desk = std::move(idle_.back());
        idle_.pop_back();
        if (!desk.workers->ours()) desk.workers->restart();
        if (desk.bytes < bytes) {
            desk.bytes = 0;  // for as long as nothing lies there
            desk.arena = aligned(bytes);
            desk.bytes = bytes;
        }
        return desk;
    }
    void lay_back(Desk desk) {
        if (idle_.size() < MOST_IDLE) idle_.push_back(std::move(desk));
    }

   private:
    static constexpr std::size_t MOST_IDLE = 4;

    static std::vector<PlainConvolution> borrowed(const std::vector<GivenLayer>& layers) {
        std::vector<PlainConvolution> plain;
        for (const auto& [weights, bias, dilation, stride, kind] : layers) {
            const auto axis = [&weights = weights](std::size_t i) {
                return static_cast<std::int64_t>(weights.shape(i));
            };
            const bool smooths = kind == static_cast<std::int64_t>(LayerKind::smoothing);
            if ((bias.shape(0) != weights.shape(2) && !smooths) || dilation < 1 || stride < 1 ||
                kind < 0 || kind > 2)
                throw std::invalid_argument("weights and bias of a layer do not go together");
            const auto outputs = static_cast<std::int64_t>(bias.shape(0));
            plain.push_back({weights.data(), bias.data(), axis(0), axis(1), outputs, dilation,
                             stride, static_cast<LayerKind>(kind)});
        }
        return plain;
    }

    OnePassNetwork network_;
    const int threads_;
    std::vector<Desk> idle_;
};

class ChunkProgram {
   public:
    using Begins = std::tuple<std::int64_t, std::int64_t, std::int64_t>;

    ChunkProgram(PackedLayers& layers, const Array<const std::int64_t, 2>& steps, std::int64_t arena,
            std::int64_t state, std::int64_t mel, std::int64_t drive, std::int64_t audio)
        : layers_(layers), program_(layers.network(), listed(steps), {arena, state, mel, drive, audio}) {}

    const OnePassProgram& program() const { return program_; }

    // Of mel, drive and audio the numbers from `begins` on.
    void run(Array<float, 2> state, Array<const float, 2> mel, Array<const float, 2> drive,
             Array<float, 2> audio, const Begins& begins) {
        const OnePassProgram::Sizes& sizes = program_.sizes();
        const auto [heard, drawn, made] = begins;
        const auto holds = [&](const auto& array, std::int64_t begin, std::int64_t size) {
            const auto width = static_cast<std::int64_t>(array.shape(1));
            return array.shape(0) == state.shape(0) && begin >= 0 && begin <= width &&
                   size <= width - begin;
        };
        if (static_cast<std::int64_t>(state.shape(1)) != sizes.state ||
            !holds(mel, heard, sizes.mel) || !holds(drive, drawn, sizes.drive) ||
            !holds(audio, made, sizes.audio))
            throw std::invalid_argument("an array is not of the program's size");
        const auto bytes = static_cast<std::size_t>(sizes.arena);
        Desk desk = layers_.take(bytes);
        {
            const nanobind::gil_scoped_release release;
            for (std::size_t row = 0; row < state.shape(0); ++row)
                program_.run(*desk.workers, static_cast<char*>(desk.arena.get()),
                             state.data() + row * state.shape(1),
                             mel.data() + row * mel.shape(1) + heard,
                             drive.data() + row * drive.shape(1) + drawn,
                             audio.data() + row * audio.shape(1) + made);
        }
        layers_.lay_back(std::move(desk));
    }

   private:
    static std::vector<Step> listed(const Array<const std::int64_t, 2>& steps) {
        if (steps.shape(1) != STEP_NUMBERS)
            throw std::invalid_argument("a step has another number of numbers");
        std::vector<Step> list(steps.shape(0));
        if (!list.empty()) std::memcpy(list.data(), steps.data(), sizeof(Step) * list.size());
        return list;
    }

    PackedLayers& layers_;
    const OnePassProgram program_;
};

}  // namespace wavewn
