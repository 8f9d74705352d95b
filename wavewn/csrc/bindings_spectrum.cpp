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

#include "bindings.hpp"
#include "bindings_onepass.hpp"
#include "cpu.hpp"
#include "spectral_chunk.hpp"
#include "spectrum_levelling.hpp"
#include "spectrum_synthesis.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace wavewn;

namespace {

using Vector = Array<const float, 1>;
using Matrix = Array<const float, 2>;
using Cube = Array<const float, 3>;
using NewMatrix = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

const SpectrumSet& set_of(const std::string& set) {
    for (const SpectrumSet& one : spectrum_sets)
        if (set == name_of(one.set) && one.kernels != nullptr && why_not(one.set)[0] == 0)
            return one;
    throw std::invalid_argument("no kernel for " + set);
}

std::int64_t axis(std::size_t size) { return static_cast<std::int64_t>(size); }

void expect(bool good, const char* what) {
    if (!good) throw std::invalid_argument(what);
}

// What calls work with: lent to one call after another, under the GIL.
class Arenas {
   public:
    struct Arena {
        std::size_t bytes = 0;
        Memory memory;
        char* begin() const { return static_cast<char*>(memory.get()); }
    };
    Arena take(std::size_t bytes) {
        Arena arena;
        if (!idle_.empty()) {
            arena = std::move(idle_.back());
            idle_.pop_back();
        }
        if (arena.bytes < bytes) arena = {bytes, aligned(bytes)};
        return arena;
    }
    void lay_back(Arena arena) {
        if (idle_.size() < MOST_IDLE) idle_.push_back(std::move(arena));
    }

   private:
    static constexpr std::size_t MOST_IDLE = 4;
    std::vector<Arena> idle_;
};

template <class T>
const T* row_of(const Array<const T, 3>& array, std::size_t row) {
    return array.data() + row * array.shape(1) * array.shape(2);
}

std::vector<LevellingStep> listed(const Array<const std::int64_t, 2>& steps) {
    expect(steps.shape(0) == 0 || steps.shape(1) == LEVELLING_NUMBERS,
           "a step has another number of numbers");
    std::vector<LevellingStep> list(steps.shape(0));
    if (!list.empty()) std::memcpy(list.data(), steps.data(), sizeof(list[0]) * list.size());
    return list;
}

SynthesisStep single(const Array<const std::int64_t, 1>& step) {
    expect(step.shape(0) == SYNTHESIS_NUMBERS, "a step has another number of numbers");
    SynthesisStep s{};
    std::memcpy(&s, step.data(), sizeof(s));
    return s;
}

class NativeLevelling {
   public:
    NativeLevelling(const std::string& set, std::int64_t n_fft, std::int64_t hop_length, float power,
                    float floor, const Vector& window, const Vector& synthesis, const Matrix& heard,
                    const Matrix& between, const Vector& mean, const Vector& scale)
        : network_(set_of(set), borrowed(n_fft, hop_length, power, floor, window, synthesis,
                                             heard, between, mean, scale)) {}

    void run(const Array<const std::int64_t, 2>& steps, Array<float, 2> state, const Cube& mel,
             const Matrix& audio, Array<float, 2> out) {
        const std::size_t batch = audio.shape(0);
        expect(mel.shape(0) == batch && out.shape(0) == batch && state.shape(0) == batch &&
                   axis(mel.shape(2)) == network_.n_mels(),
               "arrays of a levelling do not go together");
        const std::vector<LevellingStep> list = listed(steps);
        Arenas::Arena arena =
            arenas_.take(network_.check(list, axis(state.shape(1)), axis(mel.shape(1)),
                                        axis(audio.shape(1)), axis(out.shape(1))));
        {
            const nb::gil_scoped_release release;
            for (std::size_t row = 0; row < batch; ++row)
                network_.run(list, arena.begin(), state.data() + row * state.shape(1),
                             row_of(mel, row), axis(mel.shape(1)),
                             audio.data() + row * audio.shape(1), out.data() + row * out.shape(1));
        }
        arenas_.lay_back(std::move(arena));
    }
    const LevellingNetwork& network() const { return network_; }

   private:
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
    Arenas arenas_;
};

class NativeSynthesis {
   public:
    // Hop and number of sub-frames, bins near F0, VOICE, LOUD, steps of phase a Hertz, their size.
    using Numbers =
        std::tuple<std::int64_t, std::int64_t, std::int64_t, float, float, double, double>;

    NativeSynthesis(const std::string& set, const Numbers& numbers, const Vector& window,
                    const Vector& synthesis, const Matrix& envelope, const Vector& level,
                    const Vector& mean, const Vector& scale, const Array<const double, 1>& pitch)
        : network_(set_of(set),
                   borrowed(numbers, window, synthesis, envelope, level, mean, scale, pitch)) {}

    void run(const Array<const std::int64_t, 1>& step, Array<float, 2> state, const Cube& logits,
             const Cube& spectra, const Cube& mel, const Matrix& noise, Array<float, 2> out) {
        const SynthesisStep s = single(step);
        const std::size_t batch = state.shape(0);
        const auto fits = [&](const Cube& cube, std::int64_t rows, std::int64_t channels) {
            return cube.shape(0) == batch && axis(cube.shape(1)) == rows &&
                   axis(cube.shape(2)) == channels;
        };
        expect(fits(logits, s.logits_rows, network_.logits()) &&
                   fits(spectra, s.spectra_rows, network_.spectra()) &&
                   fits(mel, s.mel_rows, network_.n_mels()) && noise.shape(0) == batch &&
                   axis(noise.shape(1)) == s.noise_rows && out.shape(0) == batch &&
                   axis(out.shape(1)) == s.out_rows,
               "arrays of a synthesis do not go together");
        Arenas::Arena arena = arenas_.take(network_.check(s, axis(state.shape(1))));
        {
            const nb::gil_scoped_release release;
            for (std::size_t row = 0; row < batch; ++row)
                network_.run(s, arena.begin(), state.data() + row * state.shape(1),
                             row_of(logits, row), row_of(spectra, row), row_of(mel, row),
                             noise.data() + row * noise.shape(1), out.data() + row * out.shape(1));
        }
        arenas_.lay_back(std::move(arena));
    }
    const SynthesisNetwork& network() const { return network_; }

   private:
    static PlainSynthesis borrowed(const Numbers& numbers, const Vector& window,
                                   const Vector& synthesis, const Matrix& envelope,
                                   const Vector& level, const Vector& mean, const Vector& scale,
                                   const Array<const double, 1>& pitch) {
        const auto [hop_length, subframes, near, voice, loud, steps_a_hertz, step] = numbers;
        const std::size_t n_fft = window.shape(0), bins = n_fft / 2 + 1, bands = mean.shape(0);
        expect(can_transform(axis(n_fft)), "no transform of that length");
        expect(synthesis.shape(0) == n_fft && envelope.shape(0) == bands &&
                   envelope.shape(1) == bins && level.shape(0) == bins && scale.shape(0) == bands,
               "tables of a synthesis do not go together");
        return {axis(n_fft), hop_length, subframes, axis(bands), voice, loud, window.data(),
                synthesis.data(), envelope.data(), level.data(), mean.data(), scale.data(),
                axis(pitch.shape(0)), near, pitch.data(), steps_a_hertz, step};
    }

    SynthesisNetwork network_;
    Arenas arenas_;
};

class NativeSpectralChunk {
   public:
    NativeSpectralChunk(PackedLayers& layers, const ChunkProgram& pitch,
                        const ChunkProgram& envelopes, const NativeSynthesis& synthesis,
                        const Array<const std::int64_t, 1>& filters,
                        const NativeLevelling& levelling,
                        const Array<const std::int64_t, 2>& levellings,
                        const std::tuple<float, float>& unit, std::int64_t state)
        : layers_(layers),
          chunk_({pitch.program(), envelopes.program(), synthesis.network(), single(filters),
                  levelling.network(), listed(levellings), std::get<0>(unit), std::get<1>(unit)},
                 state) {}

    void run(Array<float, 2> state, const Cube& mel, const Matrix& noise, Array<float, 2> out) {
        const std::size_t batch = state.shape(0);
        expect(axis(state.shape(1)) == chunk_.state() && mel.shape(0) == batch &&
                   axis(mel.shape(1)) == chunk_.mel_rows() &&
                   axis(mel.shape(2)) == chunk_.n_mels() && noise.shape(0) == batch &&
                   axis(noise.shape(1)) == chunk_.noise_rows() && out.shape(0) == batch &&
                   axis(out.shape(1)) == chunk_.out_rows(),
               "arrays of a chunk do not go together");
        Desk desk = layers_.take(chunk_.bytes());
        {
            const nb::gil_scoped_release release;
            for (std::size_t row = 0; row < batch; ++row)
                chunk_.run(*desk.workers, static_cast<char*>(desk.arena.get()),
                           state.data() + row * state.shape(1), row_of(mel, row),
                           noise.data() + row * noise.shape(1), out.data() + row * out.shape(1));
        }
        layers_.lay_back(std::move(desk));
    }

   private:
    PackedLayers& layers_;
    const SpectralChunk chunk_;
};

NewMatrix new_matrix(std::size_t rows, std::size_t columns) {
    auto* const data = new float[rows * columns + 1];
    const nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
    return NewMatrix(data, {rows, columns}, owner);
}

// For tests: MOST_FRAMES frames there or back.
NewMatrix transformed(const std::string& set, const Matrix& from, std::int64_t length,
                      bool forward) {
    const SpectrumKernels& kernels = *set_of(set).kernels;
    const TransformTables tables(length);
    const std::int64_t bins = length / 2 + 1;
    expect(from.shape(0) == MOST_FRAMES && axis(from.shape(1)) == (forward ? length : 2 * bins),
           "a transform is of sixteen frames");
    NewMatrix to = new_matrix(MOST_FRAMES, static_cast<std::size_t>(forward ? 2 * bins : length));
    const Memory scratch = aligned(static_cast<std::size_t>(4 * bins * MOST_FRAMES) * sizeof(float));
    (forward ? kernels.forward : kernels.back)(tables.transform(), from.data(), to.data(),
                                               static_cast<float*>(scratch.get()));
    return to;
}

NewMatrix applied(const std::string& set, int function, const Matrix& from) {
    NewMatrix to = new_matrix(from.shape(0), from.shape(1));
    expect(function >= 0 && function <= static_cast<int>(Function::cos) &&
               from.shape(1) % MOST_FRAMES == 0,
           "a function is of whole vectors");
    const auto which = static_cast<Function>(function);
    set_of(set).kernels->apply(which, from.data(), to.data(), axis(from.size()));
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
    nb::class_<NativeSynthesis>(module, "Synthesis", "The source and filters of the spectral model.")
        .def(nb::init<const std::string&, const NativeSynthesis::Numbers&, const Vector&,
                      const Vector&, const Matrix&, const Vector&, const Vector&, const Vector&,
                      const Array<const double, 1>&>(),
             "instruction_set"_a, "numbers"_a, "window"_a, "synthesis"_a, "envelope"_a, "level"_a,
             "mean"_a, "scale"_a, "pitch"_a)
        .def("run", &NativeSynthesis::run, "step"_a, "state"_a, "logits"_a, "spectra"_a, "mel"_a,
             "noise"_a, "out"_a, "Make a chunk of a batch's audio, and advance its states.");
    nb::class_<NativeSpectralChunk>(module, "SpectralChunk", "A chunk of the spectral model.")
        .def(nb::init<PackedLayers&, const ChunkProgram&, const ChunkProgram&,
                      const NativeSynthesis&, const Array<const std::int64_t, 1>&,
                      const NativeLevelling&, const Array<const std::int64_t, 2>&,
                      const std::tuple<float, float>&, std::int64_t>(),
             nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>(),
             nb::keep_alive<1, 5>(), nb::keep_alive<1, 7>(), "network"_a, "pitch"_a, "envelopes"_a,
             "synthesis"_a, "filters"_a, "levelling"_a, "levellings"_a, "unit"_a, "state"_a)
        .def("run", &NativeSpectralChunk::run, "state"_a, "mel"_a, "noise"_a, "out"_a,
             "Make a chunk of a batch's audio, and advance its states.");
    module.def("can_transform", &can_transform, "length"_a,
               "Whether there is a transform of so many real samples.");
    module.def("transform", &transformed, "instruction_set"_a, "frames"_a, "length"_a, "forward"_a,
               "Transform sixteen real frames to bins (real, imaginary), or back, unscaled.");
    module.def("apply", &applied, "instruction_set"_a, "function"_a, "numbers"_a,
               "Give a function of each number: 0 exp, 1 log, 2 root, 3 sin, 4 cos.");
    module.def(
        "spectrum_sets",
        [] {
            std::vector<std::tuple<std::string, std::string>> found;
            for (const SpectrumSet& one : spectrum_sets)
                found.emplace_back(name_of(one.set), why_not(one.set));
            return found;
        },
        "List (name, reason) of the instruction sets for spectra, best first; the reason why one "
        "cannot run here is empty if it can.");
}
