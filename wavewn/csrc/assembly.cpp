// See assembly.hpp.

#include "assembly.hpp"

#include <algorithm>
#include <stdexcept>

namespace wavewn {

namespace {

// So few weights of a gate's older taps are read for every sample. 2026-11-22, Zen 4: 2 KB (S in int8)
// are as fast for one lane as sums that are kept, and faster for two or three; 4 KB (S in float16)
// are not.
constexpr int FEW_OLDER_BYTES = 2048;

void check(const std::string& name, const Plain& plain, const Sources& rows,
           const Sources& columns) {
    const auto used = [](const Sources& sources) {
        return static_cast<int>(sources.size()) -
               static_cast<int>(std::count(sources.begin(), sources.end(), NOTHING));
    };
    const auto size = [](int inputs, int outputs) {
        return std::to_string(inputs) + " x " + std::to_string(outputs);
    };
    if (plain.inputs != used(rows) || plain.outputs != used(columns))
        throw std::invalid_argument("expected " + name + " of " + size(used(rows), used(columns)) +
                                    ", got " + size(plain.inputs, plain.outputs));
    const bool is_signed = name.rfind("layers.", 0) == 0;  // the others hear what is rectified
    if (plain.whole != nullptr && plain.is_signed != is_signed)
        throw std::invalid_argument("expected " + name + " of inputs that are " +
                                    (is_signed ? "signed" : "not signed") + ", got the other");
}

}  // namespace

void assemble(Packing& packing, const std::vector<int>& dilations, int features,
              const std::function<Plain(const std::string& name)>& find) {
    Network& net = packing.network;
    net.layer_count = static_cast<int>(dilations.size());
    net.gate_width = 2 * padded(net.residual, 16);
    const int R = net.residual, group = net.precision == Precision::int8 ? 4 : 1;
    const auto put = [&](Product& product, const std::string& name, const Sources& rows,
                         const Sources& columns, float unit = 1) {
        Plain plain = find(name);
        plain.unit = unit;
        check(name, plain, rows, columns);
        packing.put(product, plain, rows, columns);
    };

    const bool half = packing.half;
    packing.half = false;  // what runs once a frame, and the input, stays float32
    for (int i = 0; i < net.mel_count; ++i)
        put(net.mel[i], "mel." + std::to_string(i),
            in_order(net.mel_taps * (i ? net.channels : net.bands), 1), in_order(net.channels, 16));
    const Sources condition = in_order(net.channels, 1);
    const float gate_unit = net.precision == Precision::int8 ? GATE_UNIT : 1;
    if (net.order) put(net.predictor, "predictor", condition, in_order(net.order + 1, 16));
    if (net.longest)
        put(net.pitch, "pitch", condition, in_order(net.longest - net.shortest + 2, 16));
    if (net.upsampling == Upsampling::transposed)
        put(net.upsample, "upsample", in_order(2 * net.channels, 1),
            in_order(net.hop * net.channels, 16));
    put(net.projection, "projection", condition, gate_columns(R, net.layer_count), gate_unit);
    put(net.input, "input", in_order(features, 1), in_order(R, 16));

    packing.half = half;
    for (int i = 0; i < net.layer_count; ++i) {
        Layer& layer = net.layers[i];
        const std::string name = "layers." + std::to_string(i);
        const int outputs = i + 1 == net.layer_count ? net.skip : R + net.skip;
        layer.dilation = dilations[static_cast<std::size_t>(i)];
        put(layer.gate, name + ".gate", tap_rows(R, net.taps, group), gate_columns(R, 1),
            gate_unit);
        put(layer.out, name + ".out", in_order(R, group), in_order(outputs, 16));
    }
    put(net.head_hidden, "hidden", in_order(net.skip, group), in_order(net.hidden, 16));
    put(net.head_output, "output", in_order(net.hidden, group), in_order(net.parameter_count, 16));
    const int widest = std::max({net.taps * padded(R, 16), net.gate_width, net.skip, net.hidden});
    net.operand_width = padded(widest, 16) + 16;  // as floats: room for Fine
    // A power of two divides SAMPLES: so many samples have their conditions together, too.
    const int bytes = net.precision == Precision::int8 ? 1 : half ? 2 : 4;
    const int older_bytes = (net.taps - 1) * R * net.gate_width * bytes;
    net.kept_width = (net.precision == Precision::float32 ? 1 : 2) * net.gate_width;
    for (int i = 0; i < net.layer_count; ++i) {
        Layer& layer = net.layers[i];
        layer.at_once = 1;
        if (older_bytes <= FEW_OLDER_BYTES) continue;
        while (layer.at_once < SAMPLES && 2 * layer.at_once <= layer.dilation) layer.at_once *= 2;
    }
    lay_state(net);
}

}  // namespace wavewn
