// Runs the engine without Python, on every instruction set that this machine has, and holds it to
// the equalities of its contract: chunks, company, threads and the caller's rounding change no bit,
// and int8 has the same bits on every set. What AVX512-FP16 and AMX compute is run in imitation.
//
//     driver            prints a line a run: shape, precision, instruction set, digest of the output
//     driver --threads  many calls at once, and calls that use several threads: for ThreadSanitizer
//
// .ci/sanitize runs it under sanitizers, and on an emulated ARM processor, whose int8 lines must be
// those of x86. libm is not the same there, but its double functions differ by far less than shows
// in a float.

#include <cfenv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "cpu.hpp"
#include "engine.hpp"
#include "models.hpp"
#include "trial.hpp"

using namespace wavewn;
using driver::Numbers;

namespace wavewn::imitated_amx {
extern const Kernel kernels[3];
extern const OnePassKernels onepass;
}
#if defined(HAS_FLOAT16)
namespace wavewn::imitated_fp16 {
extern const Kernel kernels[3];
}
#endif

namespace {

constexpr int BATCH = 5;
constexpr int LENGTH = 9;       // mel frames
const char* const PRECISIONS[] = {"float32", "float16", "int8"};

int failures = 0;

void expect(bool holds, const std::string& what) {
    if (holds) return;
    ++failures;
    std::fprintf(stderr, "driver: %s\n", what.c_str());
}

struct Output {
    std::vector<float> audio, parameters, state;
    bool operator==(const Output& other) const {
        const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
            return a.size() == b.size() &&
                   std::memcmp(a.data(), b.data(), sizeof(float) * a.size()) == 0;
        };
        return same(audio, other.audio) && same(parameters, other.parameters) &&
               same(state, other.state);
    }
    // FNV-1a.
    std::uint64_t digest() const {
        std::uint64_t hash = 0xCBF29CE484222325u;
        for (const auto* part : {&audio, &parameters, &state})
            for (const float value : *part) {
                unsigned char bytes[sizeof(float)];
                std::memcpy(bytes, &value, sizeof(float));
                for (const unsigned char byte : bytes) hash = (hash ^ byte) * 0x100000001B3u;
            }
        return hash;
    }
};

std::size_t whole(std::int64_t size) { return static_cast<std::size_t>(size); }

// Rows `first` to `first` + `rows` - 1 of the same batch, its mels given in chunks of so many
// frames. rounding: what the caller has set when it calls.
Output play(const driver::Model& model, const Kernel& kernel, int first, int rows, int chunk,
            int threads, int rounding = FE_TONEAREST) {
    const Network& net = model.network;
    const int cut = threads > 1 ? net.layer_count / 2 : 0;
    Room room(net, kernel, rows, threads, cut);
    const std::int64_t total = std::int64_t(LENGTH - net.look_ahead) * net.hop;
    std::vector<std::int64_t> clock(whole(rows)), speaker;
    std::vector<std::vector<float>> mels, noises;
    for (int row = first; row < first + rows; ++row) {
        Numbers numbers(100 + static_cast<std::uint64_t>(row));
        mels.push_back(numbers.many(whole(net.bands) * LENGTH, 2));
        noises.push_back(numbers.many(whole(total * net.draws)));
        for (float& value : noises.back()) value = 0.5f + 0.49f * value;
        speaker.push_back(net.speaker_count ? row % net.speaker_count : 0);
    }

    Output output;
    output.state.resize(whole(rows * net.state_size));
    output.audio.resize(whole(rows * total));
    output.parameters.resize(whole(rows * total * net.parameter_count));
    std::int64_t done = 0;
    for (int begin = 0; begin < LENGTH; begin += chunk) {
        const int frames = LENGTH - begin < chunk ? LENGTH - begin : chunk;
        const auto heard = std::int64_t(begin + frames - net.look_ahead) * net.hop;
        const std::int64_t samples = (heard > 0 ? heard : 0) - done;
        std::vector<float> mel, noise, audio(whole(rows * samples)),
            parameters(whole(rows * samples * net.parameter_count));
        for (int row = 0; row < rows; ++row) {
            for (int band = 0; band < net.bands; ++band)
                for (int f = begin; f < begin + frames; ++f)
                    mel.push_back(mels[whole(row)][whole(band * LENGTH + f)]);
            const auto from = noises[whole(row)].begin() + done * net.draws;
            noise.insert(noise.end(), from, from + samples * net.draws);
        }
        Batch batch{};
        batch.rows = rows, batch.frames = frames, batch.samples = samples;
        batch.state = output.state.data(), batch.clock = clock.data();
        batch.mel = mel.data(), batch.noise = noise.data(), batch.speaker = speaker.data();
        batch.temperature = 1;
        batch.audio = audio.data(), batch.parameters = parameters.data();
        std::fesetround(rounding);
        const bool finite = room.advance(batch).row < 0;
        const bool kept = std::fegetround() == rounding;
        std::fesetround(FE_TONEAREST);
        expect(finite, "a number is not finite");
        expect(kept, "a call left another rounding behind");
        for (int row = 0; row < rows; ++row) {
            const auto copy = [&](const std::vector<float>& part, std::vector<float>& all,
                                  std::int64_t width) {
                if (samples > 0)
                    std::memcpy(all.data() + (row * total + done) * width,
                                part.data() + row * samples * width,
                                sizeof(float) * whole(samples * width));
            };
            copy(audio, output.audio, 1);
            copy(parameters, output.parameters, net.parameter_count);
        }
        done += samples;
    }
    return output;
}

Output row_of(const Output& batch, int row) {
    const auto part = [row](const std::vector<float>& all) {
        const auto size = static_cast<std::ptrdiff_t>(all.size() / BATCH);
        return std::vector<float>(all.begin() + row * size, all.begin() + (row + 1) * size);
    };
    return {part(batch.audio), part(batch.parameters), part(batch.state)};
}

const Kernel* kernels_of(InstructionSet set) {
    switch (set) {
        case InstructionSet::avx512_fp16: return avx512_fp16::kernels;
        case InstructionSet::amx: return amx::kernels;
        case InstructionSet::avx512: return avx512::kernels;
        case InstructionSet::avx2: return avx2::kernels;
        case InstructionSet::portable: return portable::kernels;
        default: return nullptr;
    }
}

void compare_everything() {
    for (const auto& shape : driver::shapes())
        for (int precision = 0; precision < 3; ++precision) {
            std::uint64_t digest_before = 0;
            for (int i = INSTRUCTION_SETS - 1; i >= 0; --i) {
                const auto set = static_cast<InstructionSet>(i);
                if (*why_not(set) != '\0' || kernels_of(set) == nullptr) continue;
                const std::string name = shape.name + ", " + PRECISIONS[precision] + ", " +
                                         name_of(set);
                const Kernel& kernel = kernels_of(set)[precision];
                const auto model = driver::make(shape, static_cast<Precision>(precision),
                                                name_of(set));
                expect(shape.taps == 1 || model.network.layers[3].at_once == SAMPLES,
                       name + ": a lonely row's older taps are not added early");
                const Output all = play(model, kernel, 0, BATCH, LENGTH, 1);
                for (const int chunk : {1, 4, 7})
                    expect(play(model, kernel, 0, BATCH, chunk, 1) == all, name + ": chunks");
                expect(play(model, kernel, 0, BATCH, LENGTH, 1, FE_UPWARD) == all,
                       name + ": the caller's rounding");
                for (int row = 0; row < BATCH; ++row)
                    expect(play(model, kernel, row, 1, LENGTH, 1) == row_of(all, row),
                           name + ": a row alone");
                const std::uint64_t digest = all.digest();
                std::printf("%s: %016llx\n", name.c_str(), static_cast<unsigned long long>(digest));
                if (precision == static_cast<int>(Precision::int8) && digest_before != 0)
                    expect(digest == digest_before, name + ": not the bits of the set before");
                digest_before = digest;
            }
        }
}

// Lanes enough for tiles, and one that is alone.
void compare_tiles() {
    for (const auto& shape : driver::shapes()) {
        const auto model = driver::make(shape, Precision::int8, "amx");
        const Output all = play(model, imitated_amx::kernels[2], 0, BATCH, LENGTH, 1);
        const Output plain = play(model, portable::kernels[2], 0, BATCH, LENGTH, 1);
        expect(all == plain, shape.name + ", int8, imitated tiles: not the bits of the portable set");
        expect(play(model, imitated_amx::kernels[2], 2, 1, 4, 1) == row_of(all, 2),
               shape.name + ", int8, imitated tiles: a row alone");
    }
}

// Convolutions of one-pass models: whole tiles, parts of them, layers that are too narrow for them.
void try_convolutions() {
    const Trial trials[] = {
        {64, 48, 3, 1, 1, 70}, {32, 16, 3, 5, 1, 33}, {80, 40, 7, 1, 1, 17}, {16, 1, 2, 1, 1, 5},
        {8, 33, 3, 2, 1, 16},  {96, 64, 2, 1, 4, 9},  {6, 20, 3, 1, 1, 20},  {34, 17, 1, 1, 1, 40},
    };
    for (const Trial& trial : trials)
        expect(passes(imitated_amx::onepass, trial),
               "imitated tiles: a convolution of " + std::to_string(trial.inputs) + " inputs");
}

#if defined(HAS_FLOAT16)
// Inputs round to 2^-11 of themselves, and so does every sum of up to 32 products.
constexpr float IMITATED = 1e-2f;

void compare_imitated() {
    for (const auto& shape : driver::shapes()) {
        const std::string name = shape.name + ", float16, imitated";
        const auto model = driver::make(shape, Precision::float16, "imitated-fp16");
        const auto rounded = driver::make(shape, Precision::float16, "portable");
        const Kernel& kernel = imitated_fp16::kernels[1];
        const Output all = play(model, kernel, 0, BATCH, LENGTH, 1);
        const Output other = play(rounded, portable::kernels[1], 0, BATCH, LENGTH, 1);
        expect(play(model, kernel, 0, BATCH, 3, 1) == all, name + ": chunks");
        expect(play(model, kernel, 1, 1, LENGTH, 1) == row_of(all, 1), name + ": a row alone");
        float most = 0;  // of the first sample: later ones hear other samples
        for (int row = 0; row < BATCH; ++row)
            for (int i = 0; i < model.network.parameter_count; ++i) {
                const std::size_t at = whole(row) * all.parameters.size() / BATCH + whole(i);
                const float apart = all.parameters[at] - other.parameters[at];
                most = std::fmax(most, std::fabs(apart));
            }
        std::printf("%s: %g from float32 products\n", name.c_str(), static_cast<double>(most));
        expect(most > 0 && most < IMITATED, name + ": too far from float32 products");
    }
}
#endif

void call_from_many_threads() {
    for (const auto& shape : driver::shapes()) {
        const auto model = driver::make(shape, Precision::float32, "portable");
        const Kernel& kernel = portable::kernels[0];
        const Output all = play(model, kernel, 0, BATCH, 4, 1);
        std::vector<std::thread> callers;
        std::vector<Output> found(6);
        for (std::size_t i = 0; i < std::size(found); ++i)
            callers.emplace_back([&, i] {
                const int threads = 1 + static_cast<int>(i % 3);
                found[i] = play(model, kernel, 0, i < 3 ? BATCH : 1, 4, threads, FE_DOWNWARD);
            });
        for (auto& caller : callers) caller.join();
        for (std::size_t i = 0; i < std::size(found); ++i)
            expect(found[i] == (i < 3 ? all : row_of(all, 0)), shape.name + ": threads");
    }
}

}  // namespace

int main(int count, char** words) {
    if (count == 2 && std::string(words[1]) == "--threads")
        call_from_many_threads();
    else if (count == 1) {
        compare_everything();
        compare_tiles();
        try_convolutions();
#if defined(HAS_FLOAT16)
        compare_imitated();
#endif
    } else
        return std::fprintf(stderr, "usage: driver [--threads]\n"), 2;
    return failures == 0 ? 0 : 1;
}
