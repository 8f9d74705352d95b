// wavewn._native for the gated layers in training; nn/gated_training.py is its face.

#include "bindings.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu.hpp"
#include "denormals.hpp"
#include "gated_training.hpp"
#include "workers.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace wavewn;

namespace {

// numpy and DLPack give a bfloat16 as the bits of an int16.
using Bits = std::int16_t;
template <int Axes>
using Given = Array<const Bits, Axes>;

const Brain16* brain(const Bits* from) { return reinterpret_cast<const Brain16*>(from); }
Brain16* brain(Bits* from) { return reinterpret_cast<Brain16*>(from); }

constexpr std::int64_t SEGMENT = 2048;  // rows, about: a job

struct Stack {
    GatedSizes sizes;
    std::vector<std::int64_t> dilations;
    int threads;

    Stack(std::int64_t batch, std::int64_t time, std::int64_t channels, std::int64_t taps,
          std::int64_t hop, bool linear, const std::vector<std::int64_t>& spaced, int on)
        : dilations(spaced), threads(on) {
        const auto layers = static_cast<std::int64_t>(spaced.size());
        if (batch < 1 || time < 1 || channels < 16 || channels % 16 != 0 ||
            channels > MOST_GATED_CHANNELS || taps < 1 || hop < 1 || time % hop != 0 ||
            layers < 1 || on < 1 || *std::min_element(spaced.begin(), spaced.end()) < 1)
            throw std::invalid_argument("sizes of a stack that cannot be");
        const std::int64_t context = (taps - 1) * *std::max_element(spaced.begin(), spaced.end());
        const std::int64_t segment = hop * std::max<std::int64_t>(1, SEGMENT / hop);
        sizes = {batch, time, channels, taps, layers, hop, context, segment, linear};
    }

    std::int64_t layers() const { return sizes.layers; }
    std::int64_t padding() const { return sizes.padding; }
};

template <class T>
void expect(const T& array, std::initializer_list<std::int64_t> shape) {
    bool same = true;
    std::size_t axis = 0;
    for (const std::int64_t size : shape)
        same = same && static_cast<std::int64_t>(array.shape(axis++)) == size;
    if (!same) throw std::invalid_argument("an array is not of the stack's size");
}

// Room for the matrices of all layers, each packed; an allocation that the GIL still covers.
class Packed {
   public:
    explicit Packed(const Given<3>& rows)
        : rows_(rows), room_(new Brain16[std::max<std::size_t>(1, rows.size())]) {}
    void fill(const GatedKernels& kernels) {
        const auto high = static_cast<std::int64_t>(rows_.shape(1));
        for (std::size_t i = 0; i < rows_.shape(0); ++i)
            kernels.pack(brain(rows_.data()) + i * size(), high,
                         static_cast<std::int64_t>(rows_.shape(2)), room_.get() + i * size());
    }
    const Brain16* of(std::int64_t layer) const {
        return room_.get() + static_cast<std::size_t>(layer) * size();
    }

   private:
    std::size_t size() const { return rows_.shape(1) * rows_.shape(2); }

    const Given<3>& rows_;
    const std::unique_ptr<Brain16[]> room_;
};

struct Call {
    const GatedSizes* sizes;
    const GatedLayer* layer;
    void (*kernel)(const GatedSizes&, const GatedLayer&, std::int64_t);
};
void run_job(void* context, int job) {
    const Call& call = *static_cast<const Call*>(context);
    call.kernel(*call.sizes, *call.layer, job);
}

const GatedKernels& kernels() {
    if (&avx512_bf16::gated_training == nullptr || *why_not(InstructionSet::avx512_bf16) != '\0')
        throw std::invalid_argument("no kernel of avx512-bf16 runs here");
    return avx512_bf16::gated_training;
}

// x [layers, batch, padding + time, R]: its zeros and the rows of the first layer are given.
void forward(const Stack& stack, const Given<3>& gates, const Array<const float, 2>& gate_bias,
             const Given<3>& residuals, const Array<const float, 2>& residual_bias,
             const Given<4>& condition, const Array<Bits, 4>& x, const Array<Bits, 4>& factors,
             const Array<Bits, 4>& z) {
    const GatedKernels& kernel = kernels();
    const GatedSizes& s = stack.sizes;
    const std::int64_t R = s.channels, L = s.layers;
    expect(gates, {L, s.taps * R, 2 * R});
    expect(gate_bias, {L, 2 * R});
    expect(residuals, {L - 1, R, R});
    expect(residual_bias, {L - 1, R});
    expect(condition, {s.batch, s.frames() + s.linear, L, 2 * R});
    expect(x, {L, s.batch, s.padding + s.time, R});
    expect(factors, {L, s.batch, s.time, 2 * R});
    expect(z, {s.batch, s.time, L, R});
    for (const Bits* whole_lines : {factors.data(), z.data()})
        if (reinterpret_cast<std::uintptr_t>(whole_lines) % 64 != 0)
            throw std::invalid_argument("an array does not begin with a line of the cache");
    Packed gate(gates), residual(residuals);
    Workers workers(stack.threads);
    const nb::gil_scoped_release release;
    const FlushDenormals flush;  // as the workers do
    gate.fill(kernel), residual.fill(kernel);
    const std::int64_t rows = s.batch * (s.padding + s.time) * R;
    for (std::int64_t l = 0; l < L; ++l) {
        GatedLayer layer{};
        layer.index = l, layer.dilation = stack.dilations[static_cast<std::size_t>(l)];
        layer.last = l + 1 == L;
        layer.condition = brain(condition.data());
        layer.x = brain(x.data()) + l * rows;
        layer.factors = brain(factors.data()) + l * s.batch * s.time * 2 * R;
        layer.z = brain(z.data());
        layer.gate = gate.of(l);
        layer.gate_bias = gate_bias.data() + l * 2 * R;
        if (!layer.last) {
            layer.next = brain(x.data()) + (l + 1) * rows;
            layer.residual = residual.of(l);
            layer.residual_bias = residual_bias.data() + l * R;
        }
        Call call{&s, &layer, kernel.forward};
        workers.run(static_cast<int>(s.jobs()), run_job, &call);
    }
}

// dsums [layers, sums]: of W_gate [2 R, K, R], W_res [R, R] and b_res [R].
void backward(const Stack& stack, const Given<3>& gates_back, const Given<3>& residuals_back,
              const Given<4>& x, const Array<Bits, 4>& factors, const Given<4>& dz,
              const Array<Bits, 3>& dx, const Array<float, 4>& dnow, const Array<float, 4>& dbefore,
              const Array<float, 2>& dsums) {
    const GatedKernels& kernel = kernels();
    const GatedSizes& s = stack.sizes;
    const std::int64_t R = s.channels, L = s.layers, jobs = s.jobs();
    expect(gates_back, {L, s.taps * 2 * R, R});
    expect(residuals_back, {L - 1, R, R});
    expect(x, {L, s.batch, s.padding + s.time, R});
    expect(factors, {L, s.batch, s.time, 2 * R});
    expect(dz, {s.batch, s.time, L, R});
    expect(dx, {s.batch, s.time, R});
    expect(dnow, {s.batch, s.frames(), L, 2 * R});
    expect(dbefore, {s.linear ? s.batch : 0, s.frames(), L, 2 * R});
    expect(dsums, {L, s.sums()});
    const std::int64_t da_rows = (s.time + s.padding) * 2 * R;
    const std::unique_ptr<Brain16[]> da(new Brain16[static_cast<std::size_t>(s.batch * da_rows)]);
    const std::unique_ptr<float[]> sums(new float[static_cast<std::size_t>(jobs * s.sums())]);
    Packed gate(gates_back), residual(residuals_back);
    Workers workers(stack.threads);
    const nb::gil_scoped_release release;
    const FlushDenormals flush;
    gate.fill(kernel), residual.fill(kernel);
    for (std::int64_t b = 0; b < s.batch; ++b)  // what lies behind the last row has no gradient
        std::fill_n(da.get() + b * da_rows + s.time * 2 * R, s.padding * 2 * R, Brain16{0});
    for (std::int64_t l = L - 1; l >= 0; --l) {
        GatedLayer layer{};
        layer.index = l, layer.dilation = stack.dilations[static_cast<std::size_t>(l)];
        layer.last = l + 1 == L;
        layer.x = brain(x.data()) + l * s.batch * (s.padding + s.time) * R;
        layer.factors = brain(factors.data()) + l * s.batch * s.time * 2 * R;
        layer.gate_back = gate.of(l);
        if (!layer.last) layer.residual_back = residual.of(l);
        layer.dz = brain(dz.data());
        layer.da = da.get();
        layer.dx = brain(dx.data());
        layer.dnow = dnow.data();
        layer.dbefore = dbefore.data();
        layer.sums = sums.get();
        for (const auto part : {kernel.backward_gates, kernel.backward_inputs}) {
            Call call{&s, &layer, part};
            workers.run(static_cast<int>(jobs), run_job, &call);
        }
        kernel.total(sums.get(), jobs, s.sums(), dsums.data() + l * s.sums());
    }
}

std::string why_no_kernel() {
    if (*why_not(InstructionSet::amx_bf16) == '\0')
        return "torch multiplies bfloat16 in the tiles of AMX here";
    return why_not(InstructionSet::avx512_bf16);
}

}  // namespace

void bind_training(nb::module_& module) {
    nb::class_<Stack>(module, "GatedStack", "Sizes of gated layers in training, and threads.")
        .def(nb::init<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, bool,
                      const std::vector<std::int64_t>&, int>(),
             "batch"_a, "time"_a, "channels"_a, "taps"_a, "hop"_a, "linear"_a, "dilations"_a,
             "threads"_a)
        .def_prop_ro("padding", &Stack::padding, "Rows of zeros before x.")
        .def("forward", &forward, "gates"_a, "gate_bias"_a, "residuals"_a, "residual_bias"_a,
             "condition"_a, "x"_a, "factors"_a, "z"_a)
        .def("backward", &backward, "gates"_a, "residuals"_a, "x"_a, "factors"_a, "dz"_a, "dx"_a,
             "dnow"_a, "dbefore"_a, "dsums"_a);
    module.attr("MOST_GATED_CHANNELS") = MOST_GATED_CHANNELS;
    module.def("why_no_gated_training", &why_no_kernel,
               "The reason why gated layers cannot train natively here; empty if they can.");
}
