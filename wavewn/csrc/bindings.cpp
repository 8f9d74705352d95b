// wavewn._native: this file and the others of its name are the only ones that know Python.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "assembly.hpp"
#include "bandwidth.hpp"
#include "bindings.hpp"
#include "cpu.hpp"
#include "engine.hpp"
#include "packing.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace wavewn;

namespace {

using Matrix = Array<const float, 2>;
using Whole = Array<const std::int8_t, 2>;
using Vector = Array<const float, 1>;

std::vector<std::pair<std::string, std::string>> instruction_sets() {
    std::vector<std::pair<std::string, std::string>> found;
    for (int i = 0; i < WAVENET_SETS; ++i) {
        const auto set = static_cast<InstructionSet>(i);
        found.emplace_back(name_of(set), why_not(set));
    }
    return found;
}

const Kernel* kernels_of(const std::string& set) {
    if (set == "avx512-fp16") return avx512_fp16::kernels;
    if (set == "amx") return amx::kernels;
    if (set == "avx512") return avx512::kernels;
    if (set == "avx2") return avx2::kernels;
    return set == "portable" ? portable::kernels : nullptr;
}

// A packed network and the rooms of the calls that it has answered. Rooms are taken and laid back
// under the GIL; between its release and its return nothing is locked or allocated.
class PackedNetwork {
   public:
    PackedNetwork(const nb::dict& sizes, const nb::dict& numbers, const std::vector<int>& dilations,
                  const nb::dict& products, const std::optional<Matrix>& speakers,
                  const Vector& ramp, int precision, const std::string& set, int threads,
                  bool split)
        : threads_(threads) {
        const Kernel* const kernels = kernels_of(set);
        if (kernels == nullptr) throw std::invalid_argument("no kernel for " + set);
        kernel_ = kernels[precision];
        Packing packing;
        Network& net = packing.network;
        net.precision = static_cast<Precision>(precision);
        packing.half = net.precision == Precision::float16 && set != "portable";
        packing.raised = set == "avx2" ? 0 : 128;
        const auto size = [&](const char* name) { return nb::cast<int>(sizes[name]); };
        const auto number = [&](const char* name) { return nb::cast<float>(numbers[name]); };
        net.residual = size("residual"), net.skip = size("skip"), net.hidden = size("hidden");
        net.taps = size("taps");
        net.mel_count = size("mel_layers"), net.mel_taps = size("mel_taps");
        net.bands = size("bands"), net.channels = size("channels"), net.hop = size("hop");
        net.look_ahead = size("look_ahead");
        net.order = size("order"), net.longest = size("longest"), net.shortest = size("shortest");
        net.upsampling = static_cast<Upsampling>(size("upsampling"));
        net.head = static_cast<HeadKind>(size("head"));
        net.classes = size("classes"), net.components = size("components");
        net.log_classes = std::log(static_cast<double>(std::max(net.classes, 1)));
        net.parameter_count = size("parameters"), net.draws = size("draws");
        net.log_scale_min = number("log_scale_min"), net.pre_emphasis = number("pre_emphasis");
        net.mel_silence = number("mel_silence"), net.mel_scale = number("mel_scale");
        if (dilations.size() > MOST_LAYERS || net.mel_count > MOST_MEL_LAYERS)
            throw std::invalid_argument("more layers than the native engine has room for");

        assemble(packing, dilations, size("features"), [&](const std::string& name) {
            const auto entry = nb::cast<nb::tuple>(products[name.c_str()]);
            Plain plain;
            plain.bias = nb::cast<Vector>(entry[1], false).data();
            if (entry.size() == 2) {
                const auto matrix = nb::cast<Matrix>(entry[0], false);
                plain.floats = matrix.data();
                plain.inputs = static_cast<int>(matrix.shape(0));
                plain.outputs = static_cast<int>(matrix.shape(1));
            } else {
                const auto matrix = nb::cast<Whole>(entry[0], false);
                plain.whole = matrix.data();
                plain.scale = nb::cast<Vector>(entry[2], false).data();
                plain.gain = nb::cast<Vector>(entry[3], false).data();
                plain.is_signed = nb::cast<bool>(entry[4]);
                plain.is_fine = nb::cast<bool>(entry[5]);
                plain.inputs = static_cast<int>(matrix.shape(0));
                plain.outputs = static_cast<int>(matrix.shape(1));
            }
            return plain;  // nothing was converted: the arrays are those of `products`
        });
        packing.put(net.ramp, ramp.data(), ramp.shape(0));
        if (speakers)
            packing.put(net.speakers, speakers->data(), speakers->shape(0) * speakers->shape(1));
        arena_ = packing.finish(bytes_);
        net_ = packing.network;
        if (split) cut_ = middle_of(net_, static_cast<const char*>(arena_.get()) + bytes_);
    }

    std::vector<std::int64_t> offsets() const {
        std::vector<std::int64_t> found{net_.level, net_.emphasis, net_.ahead};
        if (net_.order) found.push_back(net_.residual_ring);
        found.push_back(net_.condition);
        for (int i = 0; i < net_.mel_count; ++i) found.push_back(net_.mel_rings[i]);
        for (int i = 0; i < net_.layer_count; ++i) found.push_back(net_.layers[i].ring);
        found.push_back(net_.state_size);
        return found;
    }

    std::pair<int, std::int64_t> advance(
        Array<float, 2> state, Array<std::int64_t, 1> clock, Array<const float, 3> mel,
        std::optional<Array<const float, 3>> noise, std::optional<Matrix> forced,
        std::optional<Array<const std::int64_t, 1>> speaker, float temperature,
        std::optional<Array<float, 2>> audio, std::optional<Array<float, 3>> parameters,
        std::int64_t samples) {
        Batch batch{};
        batch.rows = static_cast<int>(state.shape(0));
        batch.frames = static_cast<int>(mel.shape(2));
        batch.samples = samples;
        batch.state = state.data();
        batch.clock = clock.data();
        batch.mel = mel.data();
        batch.noise = noise ? noise->data() : nullptr;
        batch.forced = forced ? forced->data() : nullptr;
        batch.speaker = speaker ? speaker->data() : nullptr;
        batch.temperature = temperature;
        batch.audio = audio ? audio->data() : nullptr;
        batch.parameters = parameters ? parameters->data() : nullptr;
        std::unique_ptr<Room> room = take(batch.rows);
        Trouble trouble;
        {
            const nb::gil_scoped_release release;
            const auto began = std::chrono::steady_clock::now();
            trouble = room->advance(batch);
            const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
            last_ = took.count();
        }
        idle_.push_back(std::move(room));
        if (idle_.size() > MOST_IDLE) idle_.erase(idle_.begin());
        return {trouble.row, trouble.sample};
    }

    std::size_t bytes() const { return bytes_; }
    int cut() const { return cut_; }
    double kernel_seconds() const { return last_; }

   private:
    static constexpr std::size_t MOST_IDLE = 4;

    std::unique_ptr<Room> take(int rows) {
        for (auto it = idle_.begin(); it != idle_.end(); ++it)
            if ((*it)->fits(rows)) {
                std::unique_ptr<Room> room = std::move(*it);
                idle_.erase(it);
                room->wake();
                return room;
            }
        return std::make_unique<Room>(net_, kernel_, rows, threads_, cut_);
    }

    Network net_{};
    Kernel kernel_{};
    int threads_, cut_ = 0;
    Memory arena_;
    std::size_t bytes_ = 0;
    double last_ = 0;
    std::vector<std::unique_ptr<Room>> idle_;
};

}  // namespace

NB_MODULE(_native, module) {
    module.doc() = "The native engine; wavewn/engine/native.py is its face.";

    module.def("instruction_sets", &instruction_sets,
               "List (name, reason) of every instruction set of WaveNets, best first; the reason why it "
               "cannot run here is empty if it can.");
    bind_noise(module);
    bind_onepass(module);
    bind_spectrum(module);
    bind_training(module);
    module.def("request_amx", &request_amx,
               "Ask the system for the tiles of AMX; return an empty string or the reason of the "
               "refusal.");
    module.def(
        "usable_cpus", [](const std::string& root) { return usable_cpus(root.c_str()); },
        nb::arg("root") = "/",
        "Count the processors that affinity mask and cgroup quota leave to this process; `root` is "
        "where proc and sys are looked for.");
    module.def("read_rate", &read_rate, "bytes"_a, "seconds"_a, "threads"_a = 1,
               nb::call_guard<nb::gil_scoped_release>(),
               "Bytes a second that threads read, each from a block of so many bytes of its own.");

    nb::class_<PackedNetwork>(module, "Network")
        .def(nb::init<const nb::dict&, const nb::dict&, const std::vector<int>&, const nb::dict&,
                      const std::optional<Matrix>&, const Vector&, int, const std::string&, int, bool>(),
             "sizes"_a, "numbers"_a, "dilations"_a, "products"_a, "speakers"_a.none(), "ramp"_a,
             "precision"_a, "instruction_set"_a, "threads"_a, "split"_a)
        .def_prop_ro("cut", [](const PackedNetwork& self) { return self.cut(); },
                     "The layer at which two threads share a lonely stream, or 0.")
        .def_prop_ro("offsets", &PackedNetwork::offsets,
                     "Where the entries of a state begin, in floats, and its size.")
        .def_prop_ro("arena_bytes", &PackedNetwork::bytes, "Size of the packed weights.")
        .def_prop_ro("kernel_seconds", &PackedNetwork::kernel_seconds,
                     "What the last call took inside, without Python.")
        .def("advance", &PackedNetwork::advance, "state"_a, "clock"_a, "mel"_a, "noise"_a.none(),
             "forced"_a.none(), "speaker"_a.none(), "temperature"_a, "audio"_a.none(),
             "parameters"_a.none(), "samples"_a,
             "Advance a batch and return (-1, 0); or leave it as it was, and return the row and the "
             "sample at which something came up that is not finite.");
}
