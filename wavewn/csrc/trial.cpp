// See trial.hpp.

#include "trial.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "onepass_program.hpp"

namespace wavewn {

namespace {

using Numbers = std::vector<float>;

double at(const Numbers& x, std::int64_t i) { return x[static_cast<std::size_t>(i)]; }

// Eighths up to 1: exact in bfloat16, and so are some hundred products of them in float.
Numbers eighths(std::int64_t count, std::uint32_t seed) {
    Numbers x(static_cast<std::size_t>(count));
    for (float& one : x) {
        seed = seed * 1664525 + 1013904223;
        one = static_cast<float>(static_cast<int>(seed >> 16) % 17 - 8) / 8;
    }
    return x;
}

std::int64_t in_vectors(std::int64_t count) { return (count + 15) / 16 * 16; }

// A layer, and the rows that it hears.
struct Sample {
    Trial trial;
    Numbers weights, bias, heard;

    explicit Sample(const Trial& t)
        : trial(t),
          weights(eighths(t.taps * t.inputs * t.outputs, 1)),
          bias(eighths(t.outputs, 2)),
          heard(eighths(rows_heard(t.rows) * t.inputs, 3)) {}

    std::int64_t rows_heard(std::int64_t rows) const {
        return (rows - 1) * trial.stride + 1 + (trial.taps - 1) * trial.dilation;
    }

    // [rows, outputs] from row `first` on.
    Numbers made(const OnePassKernels& kernels, std::int64_t first, std::int64_t rows) const {
        const Trial& t = trial;
        const OnePassNetwork network(
            kernels, true,
            {{weights.data(), bias.data(), t.taps, t.inputs, t.outputs, t.dilation, t.stride,
              LayerKind::product}});
        const std::int64_t given = rows_heard(rows) * t.inputs, wanted = rows * t.outputs;
        const std::int64_t sums = 2 * in_vectors(given) + 64;
        const std::int64_t bytes = sums + 4 * in_vectors(wanted) + 128;
        const auto number = [](auto kind) { return static_cast<std::int64_t>(kind); };
        Step in{}, layer{}, out{};
        in.map = {number(StepKind::map), number(Place::outside), 0, number(Place::operands), 0,
                  given, Map::copy, 0, 0};
        layer.conv = {number(StepKind::conv), 0, 0, sums, -1, rows, -1, 0, 0};
        out.map = {number(StepKind::map), number(Place::floats), sums, number(Place::outside), 0,
                   wanted, Map::copy, 0, 0};
        const OnePassProgram program(network, {in, layer, out}, {bytes, 0, given, 0, wanted});
        const Memory arena = aligned(static_cast<std::size_t>(bytes));
        std::memset(arena.get(), 0, static_cast<std::size_t>(bytes));
        Numbers found(static_cast<std::size_t>(wanted));
        Workers alone(1);
        program.run(alone, static_cast<char*>(arena.get()), nullptr,
                    heard.data() + first * t.stride * t.inputs, nullptr, found.data());
        return found;
    }

    double sum(std::int64_t row, std::int64_t out) const {
        const Trial& t = trial;
        double total = at(bias, out);
        for (std::int64_t tap = 0; tap < t.taps; ++tap)
            for (std::int64_t in = 0; in < t.inputs; ++in)
                total += at(heard, (row * t.stride + tap * t.dilation) * t.inputs + in) *
                         at(weights, (tap * t.inputs + in) * t.outputs + out);
        return total;
    }
};

}  // namespace

bool passes(const OnePassKernels& kernels, const Trial& trial) {
    const Sample sample(trial);
    const Numbers whole = sample.made(kernels, 0, trial.rows);
    for (std::int64_t row = 0; row < trial.rows; ++row)
        for (std::int64_t out = 0; out < trial.outputs; ++out)
            if (at(whole, row * trial.outputs + out) != sample.sum(row, out)) return false;
    for (std::int64_t first = 0; first < trial.rows; first += 7) {
        const Numbers part =
            sample.made(kernels, first, std::min<std::int64_t>(7, trial.rows - first));
        if (!std::equal(part.begin(), part.end(), whole.begin() + first * trial.outputs))
            return false;
    }
    return true;
}

const char* distrust_tiles() {
    const OnePassKernels* const kernels = &amx_bf16::onepass;
    if (kernels == nullptr) return "it was not compiled in";
    const Trial two_by_two{64, 48, 3, 1, 1, 70}, shallow{80, 1, 2, 3, 2, 17};
    return passes(*kernels, two_by_two) && passes(*kernels, shallow)
               ? ""
               : "its tiles gave wrong sums; please report this processor";
}

}  // namespace wavewn
