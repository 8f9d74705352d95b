// wavewn._native: the only file of the engine that knows Python.

#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <utility>
#include <vector>

#include "bandwidth.hpp"
#include "cpu.hpp"

namespace nb = nanobind;
using namespace wavewn;

namespace {

std::vector<std::pair<std::string, std::string>> instruction_sets() {
    std::vector<std::pair<std::string, std::string>> found;
    for (int i = 0; i < INSTRUCTION_SETS; ++i) {
        const auto set = static_cast<InstructionSet>(i);
        found.emplace_back(name_of(set), why_not(set));
    }
    return found;
}

}  // namespace

NB_MODULE(_native, module) {
    module.doc() = "The native engine; wavewn/engine/native.py is its face.";

    module.def("instruction_sets", &instruction_sets,
               "List (name, reason) of every instruction set, best first; the reason why it cannot "
               "run here is empty if it can.");
    module.def("request_amx", &request_amx,
               "Ask the system for the tiles of AMX; return an empty string or the reason of the "
               "refusal.");
    module.def(
        "usable_cpus", [](const std::string& root) { return usable_cpus(root.c_str()); },
        nb::arg("root") = "/",
        "Count the processors that affinity mask and cgroup quota leave to this process; `root` is "
        "where proc and sys are looked for.");
    module.def("read_rate", &read_rate, nb::arg("bytes"), nb::arg("seconds"),
               nb::arg("threads") = 1, nb::call_guard<nb::gil_scoped_release>(),
               "Bytes a second that threads read, each from a block of so many bytes of its own.");
}
