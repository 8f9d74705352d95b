// See spectrum_levelling.hpp.

#include "spectrum_levelling.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "denormals.hpp"

namespace wavewn {

const SpectrumSet spectrum_sets[SPECTRUM_SETS] = {
    {InstructionSet::avx512, &avx512::spectrum},
    {InstructionSet::avx2, &avx2::spectrum},
    {InstructionSet::portable, &portable::spectrum},
};

namespace {

constexpr int RADICES[] = {4, 2, 3, 5};

std::size_t size_of(std::int64_t floats) {
    return (static_cast<std::size_t>(floats) * sizeof(float) + 63) / 64 * 64;
}

}  // namespace

bool can_transform(std::int64_t length) {
    if (length < 4 || length > 1 << 20 || length % 2) return false;
    for (const int radix : RADICES)
        while (length % radix == 0) length /= radix;
    return length == 1;
}

TransformTables::TransformTables(std::int64_t length) {
    if (!can_transform(length)) throw std::invalid_argument("no transform of that length");
    const auto turns = [](std::int64_t k, std::int64_t n, std::vector<float>& to) {
        const double angle = -2 * 3.14159265358979323846 * static_cast<double>(k) / static_cast<double>(n);
        to.push_back(static_cast<float>(std::cos(angle)));
        to.push_back(static_cast<float>(std::sin(angle)));
    };
    transform_.length = length;
    std::int64_t n = length / 2, s = 1;
    for (const int radix : RADICES)
        for (; n % radix == 0; n /= radix) {
            std::vector<float> own;
            for (std::int64_t p = 0; p < n / radix; ++p)
                for (int k = 1; k < radix; ++k) turns(p * k, n, own);
            transform_.stages[transform_.count++] = {radix, n / radix, s, own.data()};
            turns_.push_back(std::move(own));
            s *= radix;
        }
    std::vector<float> halves;
    for (std::int64_t k = 0; k <= length / 4; ++k) turns(k, length, halves);
    transform_.halves = halves.data();
    turns_.push_back(std::move(halves));
}

SparseMatrix::SparseMatrix(const float* from, std::int64_t inputs, std::int64_t outputs) {
    std::vector<std::int64_t> begins;
    for (std::int64_t out = 0; out < outputs; ++out) {
        std::int64_t first = inputs, end = 0;
        for (std::int64_t in = 0; in < inputs; ++in)
            if (from[in * outputs + out] != 0.0f) {
                first = std::min(first, in);
                end = in + 1;
            }
        begins.push_back(static_cast<std::int64_t>(weights_.size()));
        rows_.push_back({std::min(first, end), std::max<std::int64_t>(end - first, 0), nullptr});
        for (std::int64_t in = first; in < end; ++in) weights_.push_back(from[in * outputs + out]);
    }
    for (std::size_t out = 0; out < rows_.size(); ++out) rows_[out].weights = weights_.data() + begins[out];
}

LevellingNetwork::LevellingNetwork(const SpectrumKernels& kernels, const PlainLevelling& plain)
    : kernels_(kernels),
      transform_(plain.n_fft),
      heard_(plain.heard, plain.n_fft / 2 + 1, plain.n_mels),
      between_(plain.between, plain.n_mels, plain.n_fft / 2 + 1),
      window_(plain.window, plain.window + plain.win_length),
      synthesis_(plain.synthesis, plain.synthesis + plain.win_length),
      mean_(plain.mean, plain.mean + plain.n_mels),
      scale_(plain.scale, plain.scale + plain.n_mels) {
    const std::int64_t win = plain.win_length, hop = plain.hop_length;
    if (hop < 1 || win < hop || win > plain.n_fft || win % hop || plain.n_mels < 1)
        throw std::invalid_argument("sizes of a levelling do not go together");
    for (float& value : window_) value *= 0.5f;
    for (float& value : synthesis_) value /= static_cast<float>(plain.n_fft);
    tables_ = {transform_.transform(), win, hop, plain.n_mels, plain.power, plain.floor,
               window_.data(), synthesis_.data(), heard_.rows(), between_.rows(), mean_.data(),
               scale_.data()};
}

std::int64_t LevellingNetwork::padded(const LevellingStep& step) const {
    return step.frames > 0 ? (step.frames - 1) * tables_.hop_length + tables_.win_length : 0;
}

std::int64_t LevellingNetwork::total(const LevellingStep& step) const {
    return step.frames * tables_.hop_length + overlap();
}

std::size_t LevellingNetwork::check(const std::vector<LevellingStep>& steps, std::int64_t state,
                                    std::int64_t mel_rows, std::int64_t audio,
                                    std::int64_t out) const {
    const auto expect = [](bool good) {
        if (!good) throw std::invalid_argument("a levelling leaves what it is given");
    };
    constexpr std::int64_t MOST = std::int64_t{1} << 40;  // so that no sum overflows
    const auto entry = [&](std::int64_t offset, std::int64_t kept, std::int64_t held,
                           std::int64_t channels) {
        expect(kept >= 0 && kept <= held && held < MOST && (held == 0 || offset >= 0));
        expect(held == 0 || (offset <= state && held * channels <= state - offset));
    };
    std::size_t rows = 0, frames = 0, most = 0;
    for (const LevellingStep& s : steps) {
        expect(s.audio_rows == audio && s.frames >= 0 && s.frames < MOST);
        expect(s.start >= 0 && s.start + s.audio_kept + s.audio_rows == s.end && s.end < MOST);
        expect(s.begin >= -MOST && s.begin < MOST && (s.frames == 0 || s.end > s.start));
        entry(s.audio_state, s.audio_kept, s.audio_held, 1);
        entry(s.mel_state, s.mel_kept, s.mel_held, tables_.n_mels);
        entry(s.overlap_state, overlap(), overlap(), 1);
        expect(s.frames <= s.mel_kept + mel_rows);
        expect(s.out_begin >= 0 && s.out_rows >= 0 && s.out_begin + s.out_rows <= total(s));
        audio = s.out_rows;
        rows = std::max({rows, size_of(padded(s)), size_of(total(s))});
        most = std::max({most, size_of(s.audio_kept + s.audio_rows), size_of(s.out_rows)});
        frames = std::max(frames, size_of((s.mel_kept + mel_rows) * tables_.n_mels));
    }
    expect(audio == out);
    return size_of(levelling_scratch(tables_)) + 2 * rows + 2 * most + frames;
}

namespace {

// Puts the newest rows remembered before the new ones, and remembers the newest: Flow._join.
void join(float* to, float* past, std::int64_t kept, std::int64_t held, const float* from,
          std::int64_t rows, std::int64_t channels) {
    const auto bytes = [&](std::int64_t count) {
        return static_cast<std::size_t>(count * channels) * sizeof(float);
    };
    if (kept > 0) std::memcpy(to, past + (held - kept) * channels, bytes(kept));
    if (rows > 0) std::memcpy(to + kept * channels, from, bytes(rows));
    const std::int64_t newest = std::min(held, kept + rows);
    if (newest > 0)
        std::memcpy(past + (held - newest) * channels, to + (kept + rows - newest) * channels,
                    bytes(newest));
}

// The samples of the windows, those beyond the ends reflected as often as it takes.
void pad(float* to, const float* from, const LevellingStep& s, std::int64_t count) {
    const std::int64_t newest = s.end - 1, period = std::max<std::int64_t>(2 * newest, 1);
    std::int64_t n = 0;
    for (; n < count && s.begin + n < s.start; ++n) {
        std::int64_t place = std::abs(s.begin + n);
        if (s.ended) place %= period, place = std::min({place, period - place, newest});
        to[n] = from[std::clamp<std::int64_t>(place - s.start, 0, newest - s.start)];
    }
    const std::int64_t inside = std::min(count - n, s.end - (s.begin + n));
    if (inside > 0) {
        std::memcpy(to + n, from + (s.begin + n - s.start), static_cast<std::size_t>(inside) * sizeof(float));
        n += inside;
    }
    for (; n < count; ++n) {
        std::int64_t place = (s.begin + n) % period;
        place = std::min({place, period - place, newest});
        to[n] = from[std::clamp<std::int64_t>(place - s.start, 0, newest - s.start)];
    }
}

}  // namespace

void LevellingNetwork::run(const std::vector<LevellingStep>& steps, char* arena, float* state,
                           const float* mel, std::int64_t mel_rows, const float* audio,
                           float* out) const noexcept {
    std::size_t rows = 0, most = 0;
    for (const LevellingStep& s : steps) {
        rows = std::max({rows, size_of(padded(s)), size_of(total(s))});
        most = std::max({most, size_of(s.audio_kept + s.audio_rows), size_of(s.out_rows)});
    }
    const auto take = [&arena](std::size_t bytes) {
        float* const here = reinterpret_cast<float*>(arena);
        arena += bytes;
        return here;
    };
    float* const scratch = take(size_of(levelling_scratch(tables_)));
    float* const windows = take(rows);
    float* const sum = take(rows);
    float* const joined = take(most);
    float* const between = take(most);
    float* const stated = take(0);
    const std::int64_t hop = tables_.hop_length;
    const FlushDenormals flush;
    for (std::size_t n = 0; n < steps.size(); ++n) {
        const LevellingStep& s = steps[n];
        join(joined, state + s.audio_state, s.audio_kept, s.audio_held, audio, s.audio_rows, 1);
        join(stated, state + s.mel_state, s.mel_kept, s.mel_held, mel, mel_rows, tables_.n_mels);
        pad(windows, joined, s, padded(s));
        float* const past = state + s.overlap_state;
        const auto overlap_bytes = static_cast<std::size_t>(overlap()) * sizeof(float);
        std::memset(sum, 0, static_cast<std::size_t>(total(s)) * sizeof(float));
        std::memcpy(sum, past, overlap_bytes);
        for (std::int64_t first = 0; first < s.frames; first += LANES)
            kernels_.level({&tables_, std::min<std::int64_t>(s.frames - first, LANES),
                            windows + first * hop, stated + first * tables_.n_mels, sum + first * hop,
                            scratch});
        std::memcpy(past, sum + s.frames * hop, overlap_bytes);
        float* const to = n + 1 == steps.size() ? out : between;
        if (s.out_rows > 0)
            std::memcpy(to, sum + s.out_begin, static_cast<std::size_t>(s.out_rows) * sizeof(float));
        audio = to;
    }
}

}  // namespace wavewn
