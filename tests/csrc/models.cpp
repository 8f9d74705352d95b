// See models.hpp.

#include "models.hpp"

#include <cmath>

#include "assembly.hpp"

namespace driver {

using namespace wavewn;

float Numbers::next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<float>(static_cast<int>(state_ >> 53) - 1024) / 1024.0f;
}

std::vector<float> Numbers::many(std::size_t count, float scale) {
    std::vector<float> numbers;
    for (std::size_t i = 0; i < count; ++i) numbers.push_back(scale * next());
    return numbers;
}

std::vector<Shape> shapes() {
    Shape plain{};
    plain.name = "mu-law, nearest";
    plain.residual = 40, plain.skip = 40, plain.hidden = 32, plain.taps = 2;
    plain.dilations = {1, 2, 4, 8, 1, 2, 4, 8};
    plain.bands = 10, plain.channels = 12, plain.mel_count = 1, plain.mel_taps = 1;
    plain.hop = 10;
    plain.upsampling = Upsampling::nearest;
    plain.head = HeadKind::mu_law, plain.classes = 64;

    Shape predicting{};
    predicting.name = "mixture, linear, predictions";
    predicting.residual = 64, predicting.skip = 129, predicting.hidden = 17, predicting.taps = 3;
    predicting.dilations = {1, 3, 9, 27, 1};
    predicting.bands = 20, predicting.channels = 18, predicting.mel_count = 3;
    predicting.mel_taps = 3, predicting.look_ahead = 1, predicting.hop = 16;
    predicting.speakers = 3;
    predicting.upsampling = Upsampling::linear;
    predicting.head = HeadKind::mixture, predicting.components = 5;
    predicting.order = 18, predicting.longest = 37;

    Shape learned{};
    learned.name = "gaussian, transposed";
    learned.residual = 8, learned.skip = 16, learned.hidden = 8, learned.taps = 1;
    learned.dilations = {1, 1, 1};
    learned.bands = 4, learned.channels = 5, learned.mel_count = 2, learned.mel_taps = 5;
    learned.look_ahead = 4, learned.hop = 11;
    learned.upsampling = Upsampling::transposed;
    learned.head = HeadKind::gaussian, learned.components = 1;

    return {plain, predicting, learned};
}

namespace {

// Matrices by name, small enough that nothing grows from layer to layer.
class Matrices {
   public:
    explicit Matrices(Precision precision) : precision_(precision), numbers_(1) {}

    Plain of(const std::string& name, int inputs, int outputs) {
        Plain plain;
        plain.inputs = inputs;
        plain.outputs = outputs;
        const auto size = static_cast<std::size_t>(inputs) * static_cast<std::size_t>(outputs);
        const float scale = std::exp2(-std::ceil(std::log2(static_cast<float>(inputs)) / 2));
        bias_ = numbers_.many(static_cast<std::size_t>(outputs), 0.25f);
        plain.bias = bias_.data();
        const bool of_samples =
            name.rfind("layers.", 0) == 0 || name == "hidden" || name == "output";
        if (precision_ != Precision::int8 || !of_samples) {
            floats_ = numbers_.many(size, scale);
            plain.floats = floats_.data();
            return plain;
        }
        plain.is_signed = name.rfind("layers.", 0) == 0;
        plain.is_fine = name == "layers.0.gate" || name == "layers.2.gate";
        whole_.clear();
        for (std::size_t i = 0; i < size; ++i)
            whole_.push_back(static_cast<std::int8_t>(127 * numbers_.next()));
        gain_.assign(static_cast<std::size_t>(inputs), plain.is_signed ? 50.0f : 60.0f);
        scale_ = numbers_.many(static_cast<std::size_t>(outputs), scale / 127 / 200);
        for (float& one : scale_) one += scale / 127 / 50;
        plain.whole = whole_.data();
        plain.gain = gain_.data();
        plain.scale = scale_.data();
        return plain;
    }

   private:
    Precision precision_;
    Numbers numbers_;
    std::vector<float> floats_, bias_, gain_, scale_;
    std::vector<std::int8_t> whole_;
};

}  // namespace

Model make(const Shape& shape, Precision precision, const std::string& instruction_set) {
    Packing packing;
    Network& net = packing.network;
    net.precision = precision;
    packing.half = precision == Precision::float16 && instruction_set != "portable";
    packing.raised = instruction_set == "avx2" ? 0 : 128;
    net.residual = shape.residual, net.skip = shape.skip, net.hidden = shape.hidden;
    net.taps = shape.taps, net.mel_count = shape.mel_count, net.mel_taps = shape.mel_taps;
    net.bands = shape.bands, net.channels = shape.channels, net.hop = shape.hop;
    net.look_ahead = shape.look_ahead, net.speaker_count = shape.speakers;
    net.order = shape.order, net.longest = shape.longest, net.shortest = shape.longest / 8;
    net.upsampling = shape.upsampling, net.head = shape.head;
    net.classes = shape.classes, net.components = shape.components;
    const int means_and_scales = 2 * shape.components;
    switch (shape.head) {
        case HeadKind::mu_law: net.parameter_count = shape.classes, net.draws = 1; break;
        case HeadKind::mixture:
            net.parameter_count = shape.components + means_and_scales, net.draws = 2;
            break;
        case HeadKind::gaussian: net.parameter_count = means_and_scales, net.draws = 1; break;
    }
    net.log_scale_min = -7, net.pre_emphasis = 0.5f, net.mel_silence = -1, net.mel_scale = 2;
    const int features = shape.order                       ? 2 + (shape.longest > 0)
                         : shape.head == HeadKind::mu_law ? 2
                                                           : 1;

    Matrices matrices(precision);
    const int R = net.residual, C = net.channels;
    const auto layers = static_cast<int>(shape.dilations.size());
    const std::string last = "layers." + std::to_string(layers - 1) + ".out";
    assemble(packing, shape.dilations, features, [&](const std::string& name) {
        const auto ends_with = [&](const std::string& end) {
            return name.size() > end.size() &&
                   name.compare(name.size() - end.size(), end.size(), end) == 0;
        };
        if (name == "mel.0") return matrices.of(name, net.mel_taps * net.bands, C);
        if (name.rfind("mel.", 0) == 0) return matrices.of(name, net.mel_taps * C, C);
        if (name == "predictor") return matrices.of(name, C, net.order + 1);
        if (name == "pitch") return matrices.of(name, C, net.longest - net.shortest + 2);
        if (name == "upsample") return matrices.of(name, 2 * C, net.hop * C);
        if (name == "projection") return matrices.of(name, C, 2 * R * layers);
        if (name == "input") return matrices.of(name, features, R);
        if (name == "hidden") return matrices.of(name, net.skip, net.hidden);
        if (name == "output") return matrices.of(name, net.hidden, net.parameter_count);
        if (ends_with(".gate")) return matrices.of(name, net.taps * R, 2 * R);
        return matrices.of(name, R, name == last ? net.skip : R + net.skip);
    });
    Numbers numbers(2);
    std::vector<float> ramp;
    for (int t = 1; t <= net.hop; ++t)
        ramp.push_back(static_cast<float>(t) / static_cast<float>(net.hop));
    packing.put(net.ramp, ramp.data(), ramp.size());
    const auto speakers = numbers.many(static_cast<std::size_t>(shape.speakers * C), 0.5f);
    if (shape.speakers) packing.put(net.speakers, speakers.data(), speakers.size());

    Model model{};
    model.arena = packing.finish(model.bytes);
    model.network = packing.network;
    return model;
}

}  // namespace driver
