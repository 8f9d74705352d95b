// wavewn._native for random numbers; noise.py is its face.

#include "bindings.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "cpu.hpp"
#include "noise.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace wavewn;

namespace {

using Rows = Array<const std::uint64_t, 1>;

struct NoiseSet {
    InstructionSet set;
    const NoiseKernel* kernel;  // null where it was not compiled in
};
const NoiseSet noise_sets[] = {
    {InstructionSet::avx512, &avx512::noise},
    {InstructionSet::avx2, &avx2::noise},
    {InstructionSet::portable, &portable::noise},
};

// That of a set; the best that can run, where none is named.
NoiseKernel kernel_of(const std::string& set) {
    for (const NoiseSet& one : noise_sets)
        if ((set.empty() || set == name_of(one.set)) && one.kernel != nullptr &&
            why_not(one.set)[0] == 0)
            return *one.kernel;
    throw std::invalid_argument("no kernel for " + set);
}

// Asked once: CPUID takes a virtual machine microseconds.
NoiseKernel best_kernel() {
    static const NoiseKernel best = kernel_of("");
    return best;
}

std::int64_t draw(const std::vector<int>& kinds, const Rows& seeds, const Rows& streams,
                  const Rows& positions, Array<float, 3> out, const std::string& set) {
    const std::size_t batch = out.shape(0);
    bool good = seeds.shape(0) == batch && streams.shape(0) == batch &&
                positions.shape(0) == batch && out.shape(2) == kinds.size();
    for (const int kind : kinds)
        good = good && kind >= 0 && kind <= static_cast<int>(NoiseKind::logistic);
    if (!good) throw std::invalid_argument("arrays of a drawing do not go together");
    const NoiseKernel kernel = set.empty() ? best_kernel() : kernel_of(set);
    const auto samples = static_cast<std::int64_t>(out.shape(1));
    const auto stride = static_cast<std::int64_t>(kinds.size());
    std::int64_t unsure = 0;
    const nb::gil_scoped_release release;
    for (std::size_t row = 0; row < batch; ++row)
        for (std::size_t n = 0; n < kinds.size(); ++n)
            unsure += kernel({static_cast<NoiseKind>(kinds[n]), seeds.data()[row],
                              streams.data()[row], positions.data()[row], n, samples, stride,
                              out.data() + row * out.shape(1) * kinds.size() + n});
    return unsure;
}

}  // namespace

void bind_noise(nb::module_& module) {
    module.def("draw_noise", &draw, "kinds"_a, "seeds"_a, "streams"_a, "positions"_a, "out"_a,
               "instruction_set"_a = "",
               "Fill [batch, samples, kinds] with noise (0 uniform, 1 normal, 2 logistic) from given "
               "positions on; return how many numbers are NaN because they are not sure.");
}
