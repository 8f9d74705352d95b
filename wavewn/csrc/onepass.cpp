// See onepass_program.hpp.

#include "onepass_program.hpp"

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "denormals.hpp"

namespace wavewn {

namespace {

constexpr std::int64_t VECTOR = 16;

// To the nearest, ties to even, as the processor narrows inputs.
std::uint16_t brain(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (std::isnan(value)) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
    bits += 0x7fff + (bits >> 16 & 1);
    return static_cast<std::uint16_t>(bits >> 16);
}

std::size_t rounded_up(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

std::size_t whole_vectors(std::int64_t outputs) {
    return static_cast<std::size_t>((outputs + VECTOR - 1) / VECTOR * VECTOR);
}

// Panel after panel; see OnePassLayer.
void pack(const PlainConvolution& plain, int panel, bool bfloat16, char* to) {
    const std::int64_t group = bfloat16 ? 2 : 1;
    for (std::int64_t first = 0; first < plain.outputs;) {
        const std::int64_t vectors = plain.outputs - first > VECTOR ? panel : 1;
        for (std::int64_t tap = 0; tap < plain.taps; ++tap)
            for (std::int64_t in = 0; in < plain.inputs; in += group)
                for (std::int64_t out = first; out < first + VECTOR * vectors; ++out)
                    for (std::int64_t i = in; i < in + group; ++i) {
                        const bool there = out < plain.outputs;
                        const float weight =
                            there ? plain.weights[(tap * plain.inputs + i) * plain.outputs + out]
                                  : 0.0f;
                        if (bfloat16) {
                            const std::uint16_t narrow = brain(weight);
                            std::memcpy(to, &narrow, sizeof(narrow));
                            to += sizeof(narrow);
                        } else {
                            std::memcpy(to, &weight, sizeof(weight));
                            to += sizeof(weight);
                        }
                    }
        first += VECTOR * vectors;
    }
}

}  // namespace

const OnePassSet onepass_sets[ONE_PASS_SETS] = {
    {InstructionSet::amx_bf16, &amx_bf16::onepass},
    {InstructionSet::avx512_bf16, &avx512_bf16::onepass},
    {InstructionSet::avx512, &avx512::onepass},
    {InstructionSet::avx2, &avx2::onepass},
    {InstructionSet::portable, &portable::onepass},
};

OnePassNetwork::OnePassNetwork(const OnePassKernels& kernels, bool bfloat16,
                               const std::vector<PlainConvolution>& layers)
    : kernel_(bfloat16 ? kernels.bfloat16 : kernels.float32), bfloat16_(bfloat16) {
    if (kernel_ == nullptr) throw std::invalid_argument("this set has no kernel of that precision");
    const auto weight_bytes = [&](const PlainConvolution& plain) {
        const auto panel = static_cast<std::int64_t>(VECTOR * kernels.panel);
        const auto outputs = static_cast<std::size_t>((plain.outputs + panel - 1) / panel * panel);
        const auto depth = static_cast<std::size_t>(plain.taps * plain.inputs);
        if (plain.kind == LayerKind::smoothing) return rounded_up(depth * sizeof(float));
        if (plain.kind == LayerKind::precise)
            return rounded_up(whole_vectors(plain.outputs) * depth * sizeof(float));
        return rounded_up(outputs * depth * static_cast<std::size_t>(operand_bytes()));
    };
    std::size_t bytes = 0;
    for (const PlainConvolution& plain : layers) {
        const bool product = plain.kind == LayerKind::product;
        if (!product && plain.stride != 1)
            throw std::invalid_argument("a precise layer makes several rows at once");
        if (plain.kind == LayerKind::smoothing && (plain.inputs != 1 || plain.dilation != 1))
            throw std::invalid_argument("a smoothing has one filter");
        if (bfloat16 && plain.inputs % 2 && product)
            throw std::invalid_argument("bfloat16 meets inputs in pairs, and a layer has an odd one");
        bytes += weight_bytes(plain) + rounded_up(whole_vectors(plain.outputs) * sizeof(float));
    }
    arena_ = aligned(bytes);
    char* to = static_cast<char*>(arena_.get());
    std::memset(to, 0, bytes);
    for (const PlainConvolution& plain : layers) {
        OnePassLayer layer{plain.inputs, plain.outputs, plain.taps, plain.dilation, plain.stride, to,
                           nullptr, plain.kind};
        if (plain.kind == LayerKind::smoothing)
            std::memcpy(to, plain.weights, static_cast<std::size_t>(plain.taps) * sizeof(float));
        else if (plain.kind == LayerKind::precise)
            pack(plain, 1, false, to);
        else
            pack(plain, kernels.panel, bfloat16, to);
        to += weight_bytes(plain);
        auto* const bias = reinterpret_cast<float*>(to);
        std::memcpy(bias, plain.bias, static_cast<std::size_t>(plain.outputs) * sizeof(float));
        layer.bias = bias;
        to += rounded_up(whole_vectors(plain.outputs) * sizeof(float));
        layers_.push_back(layer);
    }
}

OnePassProgram::OnePassProgram(const OnePassNetwork& network, std::vector<Step> steps, Sizes sizes)
    : network_(network), steps_(std::move(steps)), sizes_(sizes) {
    for (const Step& step : steps_) check(step);
}

void OnePassProgram::run(Workers& workers, char* arena, float* state, const float* mel,
                         const float* drive, float* audio) const noexcept {
    const auto share = [](void* context, int jobs, void (*job)(void*, int), void* argument) {
        static_cast<Workers*>(context)->run(jobs, job, argument);
    };
    const Sharing sharing{workers.threads(), share, &workers};
    const FlushDenormals flush;
    network_.kernel()({steps_.data(), static_cast<std::int64_t>(steps_.size()),
                       network_.layers().data(), arena, state, mel, drive, audio, &sharing});
}

namespace {

void expect(bool good, const char* what) {
    if (!good) throw std::invalid_argument(std::string("a step of a one-pass program ") + what);
}

}  // namespace

void OnePassProgram::check_buffer(std::int64_t offset, std::int64_t bytes) const {
    const std::int64_t vector = 4 * VECTOR;  // read or written beyond the end
    expect(offset >= 0 && bytes >= 0 && offset % 2 == 0 && offset + bytes + vector <= sizes_.arena,
           "leaves the arena");
}

void OnePassProgram::check(const Step& step) const {
    const std::int64_t operand = network_.operand_bytes();
    const auto within = [](std::int64_t first, std::int64_t count, std::int64_t size) {
        expect(first >= 0 && count >= 0 && first + count <= size, "leaves the caller's arrays");
    };
    switch (step.kind) {
        case StepKind::load:
        case StepKind::save: {  // their numbers are the same
            const LoadStep& s = step.load;
            check_buffer(s.buffer, s.count * (s.is_operand ? operand : 4));
            return within(s.state, s.count, sizes_.state);
        }
        case StepKind::pad: {
            const PadStep& s = step.pad;
            expect(s.left >= 0 && s.right >= 0 && s.rows >= 0 && s.channels > 0, "pads nothing");
            const std::int64_t size = s.is_operand ? operand : 4;
            check_buffer(s.buffer, (s.left + s.rows + s.right) * s.channels * size);
            const std::int64_t longest = s.left > s.right ? s.left : s.right;
            if (s.mode == PadMode::reflect) expect(s.rows > longest, "reflects too much");
            return expect(s.mode == PadMode::zeros || s.rows > 0, "repeats no row");
        }
        case StepKind::map: {
            const MapStep& s = step.map;
            if (static_cast<Place>(s.from_place) == Place::outside)
                within(s.from, s.count, sizes_.mel);
            else if (static_cast<Place>(s.from_place) == Place::drive)
                within(s.from, s.count, sizes_.drive);
            else
                check_buffer(s.from, s.count * 4);
            if (static_cast<Place>(s.to_place) == Place::outside)
                return within(s.to, s.count, sizes_.audio);
            return check_buffer(
                s.to, s.count * (static_cast<Place>(s.to_place) == Place::operands ? operand : 4));
        }
        case StepKind::conv: {
            const ConvStep& s = step.conv;
            expect(s.layer >= 0 && s.rows > 0 &&
                       s.layer < static_cast<std::int64_t>(network_.layers().size()),
                   "runs no layer");
            const OnePassLayer& layer = network_.layers()[static_cast<std::size_t>(s.layer)];
            const std::int64_t heard =
                (s.rows - 1) * layer.stride + 1 + (layer.taps - 1) * layer.dilation;
            const bool product = layer.kind == LayerKind::product;
            const bool smooths = layer.kind == LayerKind::smoothing;
            const std::int64_t width = smooths ? layer.outputs : layer.inputs;
            check_buffer(s.from, heard * width * (product ? operand : 4));
            const bool adds = s.to < 0 || s.added >= 0 || s.heard >= 0;
            expect(product || !adds, "adds to a precise layer");
            if (s.to >= 0) check_buffer(s.to, s.rows * layer.outputs * 4);
            if (s.heard >= 0) check_buffer(s.heard, s.rows * layer.outputs * operand);
            if (s.added >= 0) check_buffer(s.added, s.rows * layer.outputs * 4);
            return;
        }
        case StepKind::blend: {
            const BlendStep& s = step.blend;
            for (const std::int64_t from : {s.a, s.b}) check_buffer(from, s.count * 4);
            if (s.c >= 0) check_buffer(s.c, s.count * 4);
            return check_buffer(s.to, s.count * operand);
        }
        case StepKind::gate: {
            const GateStep& s = step.gate;
            expect(s.rows >= 0 && s.channels > 0, "gates nothing");
            const bool narrow = static_cast<Place>(s.to_place) == Place::operands;
            check_buffer(s.from, s.rows * s.channels * 8);
            return check_buffer(s.to, s.rows * s.channels * (narrow ? operand : 4));
        }
        case StepKind::repeat: {
            const RepeatStep& s = step.repeat;
            expect(s.rows >= 0 && s.channels > 0 && s.factor > 0, "repeats nothing");
            const bool narrow = static_cast<Place>(s.to_place) == Place::operands;
            check_buffer(s.from, s.rows * s.channels * 4);
            return check_buffer(s.to, s.rows * s.factor * s.channels * (narrow ? operand : 4));
        }
        case StepKind::add: {
            const AddStep& s = step.add;
            for (const std::int64_t buffer : {s.a, s.b, s.to}) check_buffer(buffer, s.count * 4);
            return;
        }
    }
    expect(false, "is of no known kind");
}

}  // namespace wavewn
