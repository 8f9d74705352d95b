// See spectrum_levelling.hpp.

#include "spectrum_levelling.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "denormals.hpp"

namespace wavewn {

LevellingNetwork::LevellingNetwork(const SpectrumSet& set, const PlainLevelling& plain)
    : set_(set),
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

LevellingNetwork::Rooms LevellingNetwork::lay_out(const std::vector<LevellingStep>& steps,
                                                  std::int64_t mel_rows, char* arena) const {
    std::int64_t joined = 0, stated = 0, windows = 0, sum = 0, between = 0;
    for (const LevellingStep& s : steps) {
        joined = std::max(joined, s.audio.rows + s.audio_rows);
        stated = std::max(stated, (s.mel.rows + mel_rows) * tables_.n_mels);
        windows = std::max(windows, padded(s));
        sum = std::max(sum, total(s));
        between = std::max(between, s.out_rows);
    }
    Pieces pieces(arena);
    Rooms rooms{};
    rooms.scratch = pieces.take(levelling_scratch(tables_));
    rooms.joined = pieces.take(joined);
    rooms.stated = pieces.take(stated);
    rooms.windows = pieces.take(windows);
    rooms.sum = pieces.take(sum);
    rooms.between = pieces.take(between);
    rooms.bytes = pieces.bytes();
    return rooms;
}

std::size_t LevellingNetwork::check(const std::vector<LevellingStep>& steps, std::int64_t state,
                                    std::int64_t mel_rows, std::int64_t audio,
                                    std::int64_t out) const {
    for (const LevellingStep& s : steps) {
        check_kept(s.audio, 1, state);
        check_kept(s.mel, tables_.n_mels, state);
        check_kept({overlap(), overlap(), s.overlap_state}, 1, state);
        check_numbers(s.audio_rows == audio && s.frames >= 0 && s.frames <= s.mel.rows + mel_rows);
        check_numbers(s.start >= 0 && s.end < MOST_ROWS && s.begin >= -MOST_ROWS);
        check_numbers(s.begin < MOST_ROWS && s.start + s.audio.rows + s.audio_rows == s.end);
        check_numbers(s.frames == 0 || s.end > s.start);
        check_numbers(s.out_begin >= 0 && s.out_rows >= 0 && s.out_begin <= total(s) &&
                      s.out_rows <= total(s) - s.out_begin);
        audio = s.out_rows;
    }
    check_numbers(audio == out);
    return lay_out(steps, mel_rows, nullptr).bytes;
}

namespace {

// The samples of the windows, those beyond the ends reflected as often as it takes.
void pad(float* to, const float* from, const LevellingStep& s, std::int64_t count) {
    const std::int64_t newest = s.end - 1, period = std::max<std::int64_t>(2 * newest, 1);
    const auto reflected = [&](std::int64_t place) {
        place = std::abs(place);
        if (s.ended) place %= period, place = std::min({place, period - place, newest});
        return from[std::clamp<std::int64_t>(place - s.start, 0, newest - s.start)];
    };
    std::int64_t n = 0;
    for (; n < count && s.begin + n < s.start; ++n) to[n] = reflected(s.begin + n);
    const std::int64_t inside = std::min(count - n, s.end - (s.begin + n));
    if (inside > 0) {
        const auto bytes = static_cast<std::size_t>(inside) * sizeof(float);
        std::memcpy(to + n, from + (s.begin + n - s.start), bytes);
        n += inside;
    }
    for (; n < count; ++n) to[n] = reflected(s.begin + n);
}

}  // namespace

void LevellingNetwork::run(const std::vector<LevellingStep>& steps, char* arena, float* state,
                           const float* mel, std::int64_t mel_rows, const float* audio,
                           float* out) const noexcept {
    const Rooms rooms = lay_out(steps, mel_rows, arena);
    const std::int64_t hop = tables_.hop_length, bands = tables_.n_mels;
    const auto bytes = [](std::int64_t floats) {
        return static_cast<std::size_t>(floats) * sizeof(float);
    };
    const FlushDenormals flush;
    for (std::size_t n = 0; n < steps.size(); ++n) {
        const LevellingStep& s = steps[n];
        const float* const heard =
            join(rooms.joined, state + s.audio.state, s.audio, audio, s.audio_rows, 1);
        const float* const stated =
            join(rooms.stated, state + s.mel.state, s.mel, mel, mel_rows, bands);
        pad(rooms.windows, heard, s, padded(s));
        float* const past = state + s.overlap_state;
        std::memset(rooms.sum, 0, bytes(total(s)));
        std::memcpy(rooms.sum, past, bytes(overlap()));
        for (std::int64_t i = 0; i < s.frames; i += MOST_FRAMES) {
            const std::int64_t frames = std::min<std::int64_t>(s.frames - i, MOST_FRAMES);
            set_.of(frames).level({&tables_, frames, rooms.windows + i * hop, stated + i * bands,
                                   rooms.sum + i * hop, rooms.scratch});
        }
        std::memcpy(past, rooms.sum + s.frames * hop, bytes(overlap()));
        float* const to = n + 1 == steps.size() ? out : rooms.between;
        if (s.out_rows > 0) std::memcpy(to, rooms.sum + s.out_begin, bytes(s.out_rows));
        audio = to;
    }
}

}  // namespace wavewn
