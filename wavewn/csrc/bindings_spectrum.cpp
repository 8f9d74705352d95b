// wavewn._native for spectra; engine/spectrum.py is its face.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings_spectrum.hpp"
#include "cpu.hpp"
#include "spectrum_levelling.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace wavewn;

namespace {

template <class T, int Axes>
using Array = nb::ndarray<T, nb::ndim<Axes>, nb::c_contig, nb::device::cpu>;
using Vector = Array<const float, 1>;
using Matrix = Array<const float, 2>;
using NewMatrix = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

const SpectrumKernels& kernels_of(const std::string& set) {
    for (const SpectrumSet& one : spectrum_sets)
        if (set == name_of(one.set) && one.kernels != nullptr && why_not(one.set)[0] == 0)
            return *one.kernels;
    throw std::invalid_argument("no kernel for " + set);
}

std::int64_t axis(std::size_t size) { return static_cast<std::int64_t>(size); }

void expect(bool good, const char* what) {
    if (!good) throw std::invalid_argument(what);
}

// What a call works with, kept for the next one.
struct Arena {
    std::size_t bytes = 0;
    Memory memory;
};

// A levelling, and arenas for it: lent to one call after another, under the GIL.
class NativeLevelling {
   public:
    NativeLevelling(const std::string& set, std::int64_t n_fft, std::int64_t hop_length, float power,
                    float floor, const Vector& window, const Vector& synthesis, const Matrix& heard,
                    const Matrix& between, const Vector& mean, const Vector& scale)
        : network_(kernels_of(set), borrowed(n_fft, hop_length, power, floor, window, synthesis,
                                             heard, between, mean, scale)) {}

    void run(const Array<const std::int64_t, 2>& steps, Array<float, 2> state,
             const Array<const float, 3>& mel, const Matrix& audio, Array<float, 2> out) {
        expect(steps.shape(1) == LEVELLING_NUMBERS, "a step has another number of numbers");
        const std::size_t batch = audio.shape(0), width = audio.shape(1), given = out.shape(1);
        expect(mel.shape(0) == batch && out.shape(0) == batch && state.shape(0) == batch &&
                   axis(mel.shape(2)) == network_.n_mels(),
               "arrays of a levelling do not go together");
        std::vector<LevellingStep> list(steps.shape(0));
        if (!list.empty()) std::memcpy(list.data(), steps.data(), sizeof(list[0]) * list.size());
        const std::size_t bytes = network_.check(list, axis(state.shape(1)), axis(mel.shape(1)),
                                                 axis(width), axis(given));
        Arena arena = take(bytes);
        {
            const nb::gil_scoped_release release;
            for (std::size_t row = 0; row < batch; ++row)
                network_.run(list, static_cast<char*>(arena.memory.get()),
                             state.data() + row * state.shape(1),
                             mel.data() + row * mel.shape(1) * mel.shape(2), axis(mel.shape(1)),
                             audio.data() + row * width, out.data() + row * given);
        }
        if (idle_.size() < MOST_IDLE) idle_.push_back(std::move(arena));
    }

   private:
    static constexpr std::size_t MOST_IDLE = 4;

    Arena take(std::size_t bytes) {
        Arena arena;
        if (!idle_.empty()) {
            arena = std::move(idle_.back());
            idle_.pop_back();
        }
        if (arena.bytes < bytes) arena = {bytes, aligned(bytes)};
        return arena;
    }

    static PlainLevelling borrowed(std::int64_t n_fft, std::int64_t hop_length, float power,
                                   float floor, const Vector& window, const Vector& synthesis,
                                   const Matrix& heard, const Matrix& between, const Vector& mean,
                                   const Vector& scale) {
        expect(can_transform(n_fft), "no transform of that length");
        const std::size_t bands = heard.shape(1);
        expect(axis(heard.shape(0)) == n_fft / 2 + 1 && between.shape(0) == bands &&
                   between.shape(1) == heard.shape(0) && mean.shape(0) == bands &&
                   scale.shape(0) == bands && window.shape(0) == synthesis.shape(0),
               "tables of a levelling do not go together");
        return {n_fft, axis(window.shape(0)), hop_length, axis(bands), power, floor, window.data(),
                synthesis.data(), heard.data(), between.data(), mean.data(), scale.data()};
    }

    LevellingNetwork network_;
    std::vector<Arena> idle_;
};

NewMatrix new_matrix(std::size_t rows, std::size_t columns) {
    auto* const data = new float[rows * columns + 1];
    const nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    return NewMatrix(data, {rows, columns}, owner);
}

// For tests: LANES frames there or back.
NewMatrix transformed(const std::string& set, const Matrix& from, std::int64_t length, bool forward) {
    const SpectrumKernels& kernels = kernels_of(set);
    const TransformTables tables(length);
    const std::int64_t bins = length / 2 + 1;
    expect(from.shape(0) == LANES && axis(from.shape(1)) == (forward ? length : 2 * bins),
           "a transform is of sixteen frames");
    NewMatrix to = new_matrix(LANES, static_cast<std::size_t>(forward ? 2 * bins : length));
    const Memory scratch = aligned(static_cast<std::size_t>(4 * bins * LANES) * sizeof(float));
    (forward ? kernels.forward : kernels.back)(tables.transform(), from.data(), to.data(),
                                               static_cast<float*>(scratch.get()));
    return to;
}

NewMatrix applied(const std::string& set, int function, const Matrix& from) {
    NewMatrix to = new_matrix(from.shape(0), from.shape(1));
    expect(function >= 0 && function <= static_cast<int>(Function::root) &&
               from.shape(1) % LANES == 0,
           "a function is of whole vectors");
    kernels_of(set).apply(static_cast<Function>(function), from.data(), to.data(), axis(from.size()));
    return to;
}

}  // namespace

void bind_spectrum(nb::module_& module) {
    nb::class_<NativeLevelling>(module, "Levelling", "Levels audio to its mel.")
        .def(nb::init<const std::string&, std::int64_t, std::int64_t, float, float, const Vector&,
                      const Vector&, const Matrix&, const Matrix&, const Vector&, const Vector&>(),
             "instruction_set"_a, "n_fft"_a, "hop_length"_a, "power"_a, "floor"_a, "window"_a,
             "synthesis"_a, "heard"_a, "between"_a, "mean"_a, "scale"_a)
        .def("run", &NativeLevelling::run, "steps"_a, "state"_a, "mel"_a, "audio"_a, "out"_a,
             "Level the audio of a batch once for each step, and advance its states.");
    module.def("can_transform", &can_transform, "length"_a,
               "Whether there is a transform of so many real samples.");
    module.def("transform", &transformed, "instruction_set"_a, "frames"_a, "length"_a, "forward"_a,
               "Transform sixteen real frames to bins (real, imaginary), or back, unscaled.");
    module.def("apply", &applied, "instruction_set"_a, "function"_a, "numbers"_a,
               "Give a function of each number: 0 exp, 1 log, 2 root.");
    module.def(
        "spectrum_sets",
        [] {
            std::vector<std::tuple<std::string, std::string>> found;
            for (const auto& [set, kernels] : spectrum_sets) found.emplace_back(name_of(set), why_not(set));
            return found;
        },
        "List (name, reason) of the instruction sets for spectra, best first; the reason why one "
        "cannot run here is empty if it can.");
}
