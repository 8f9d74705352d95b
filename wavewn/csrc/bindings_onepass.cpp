// wavewn._native for one-pass models; engine/onepass_flow.py is its face.

#include "bindings_onepass.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "trial.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace wavewn;

void bind_onepass(nb::module_& module) {
    nb::class_<PackedLayers>(module, "OnePassNetwork", "Layers of a one-pass model, packed.")
        .def(nb::init<const std::string&, bool, int, const std::vector<GivenLayer>&>(),
             "instruction_set"_a, "bfloat16"_a, "threads"_a, "layers"_a);
    nb::class_<ChunkProgram>(module, "OnePassProgram", "The steps of chunks of one size.")
        .def(nb::init<PackedLayers&, const Array<const std::int64_t, 2>&, std::int64_t, std::int64_t,
                      std::int64_t, std::int64_t, std::int64_t>(),
             nb::keep_alive<1, 2>(), "network"_a, "steps"_a, "arena_bytes"_a, "state"_a, "mel"_a,
             "drive"_a, "audio"_a)
        .def("run", &ChunkProgram::run, "state"_a, "mel"_a, "drive"_a, "audio"_a,
             "begins"_a = ChunkProgram::Begins{0, 0, 0},
             "Advance the states of a batch, row by row, and write its audio; mel, drive and audio "
             "from these numbers of each row on.");
    module.def("distrust_tiles", &distrust_tiles,
               "Let AMX's tiles convolve known numbers, after `request_amx`; return an empty string or "
               "what is wrong.");
    module.def(
        "onepass_sets",
        [] {
            std::vector<std::tuple<std::string, std::string, std::string>> found;
            for (const auto& [set, kernels] : onepass_sets) {
                const bool narrow =
                    set == InstructionSet::avx512_bf16 || set == InstructionSet::amx_bf16;
                found.emplace_back(name_of(set), narrow ? "bfloat16" : "float32", why_not(set));
            }
            return found;
        },
        "List (name, precision, reason) of the instruction sets for one-pass models, best first; "
        "the reason why one cannot run here is empty if it can.");
}
