// See spectrum_synthesis.hpp.

#include "spectrum_synthesis.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "denormals.hpp"

namespace wavewn {

namespace {

constexpr std::int64_t DOUBLE = 2;  // as long as so many floats

std::size_t bytes_of(std::int64_t floats) {
    return static_cast<std::size_t>(floats) * sizeof(float);
}

}  // namespace

SynthesisNetwork::SynthesisNetwork(const SpectrumSet& set, const PlainSynthesis& plain)
    : set_(set),
      transform_(plain.n_fft),
      envelope_(plain.envelope, plain.n_mels, plain.n_fft / 2 + 1),
      window_(plain.window, plain.window + plain.n_fft),
      synthesis_(plain.synthesis, plain.synthesis + plain.n_fft),
      level_(plain.level, plain.level + plain.n_fft / 2 + 1),
      mean_(plain.mean, plain.mean + plain.n_mels),
      scale_(plain.scale, plain.scale + plain.n_mels),
      pitch_(plain.pitch, plain.pitch + plain.pitches),
      subframes_(plain.subframes),
      near_(plain.near),
      steps_a_hertz_(plain.steps_a_hertz),
      step_(plain.step) {
    const bool good = plain.hop_length > 0 && plain.n_fft % plain.hop_length == 0 &&
                      plain.subframes > 0 && plain.n_mels > 0 && plain.pitches > 0;
    if (!good) throw std::invalid_argument("sizes of a synthesis do not go together");
    for (float& value : window_) value *= 0.5f;
    for (float& value : synthesis_) value /= static_cast<float>(plain.n_fft);
    tables_ = {transform_.transform(), plain.hop_length,  plain.n_mels,     plain.voice,
               plain.loud,             window_.data(),    synthesis_.data(), envelope_.rows(),
               level_.data(),          mean_.data(),      scale_.data()};
}

SynthesisNetwork::Rooms SynthesisNetwork::lay_out(const SynthesisStep& s, char* arena) const {
    Pieces pieces(arena);
    Rooms rooms{};
    const std::int64_t hops = s.noise_rows / tables_.hop_length;
    const std::int64_t pitches = s.logits_rows * subframes_;
    rooms.scratch = pieces.take(synthesis_scratch(tables_));
    rooms.spectra = pieces.take((s.spectra.rows + s.spectra_rows * subframes_) * 3 * bins());
    rooms.mels = pieces.take(s.mel_rows * subframes_ * tables_.n_mels);
    rooms.mel = pieces.take((s.mel.rows + s.mel_rows * subframes_) * tables_.n_mels);
    rooms.samples = pieces.take(overlap() + s.noise_rows);
    rooms.heard = pieces.take(hops * length());
    rooms.noise = pieces.take((s.noise.rows + hops) * length());
    rooms.cycles = pieces.take(2 * pitches + s.cycles.rows);
    rooms.phase = pieces.take(2 * pitches + s.phase.rows);
    rooms.periods = reinterpret_cast<double*>(pieces.take((s.cycles.rows + pitches) * DOUBLE));
    rooms.middles = reinterpret_cast<double*>(pieces.take((s.phase.rows + pitches) * DOUBLE));
    rooms.sum = pieces.take(s.frames * tables_.hop_length + overlap());
    rooms.bytes = pieces.bytes();
    return rooms;
}

std::size_t SynthesisNetwork::check(const SynthesisStep& s, std::int64_t state) const {
    const std::int64_t hop = tables_.hop_length;
    for (const std::int64_t rows : {s.logits_rows, s.spectra_rows, s.mel_rows, s.noise_rows, s.frames})
        check_numbers(rows >= 0 && rows < MOST_ROWS);
    check_kept({1, 1, s.phase_state}, 1, state);
    check_kept(s.heard, 1, state);
    check_kept(s.spectra, 3 * bins(), state);
    check_kept(s.mel, tables_.n_mels, state);
    check_kept(s.cycles, 1, state);
    check_kept(s.phase, 1, state);
    check_kept(s.noise, length(), state);
    check_kept({overlap(), overlap(), s.overlap_state}, 1, state);
    check_numbers(s.heard.rows <= overlap() && s.heard.held <= overlap() && s.noise_rows % hop == 0);
    check_numbers(s.frames <= s.spectra.rows + s.spectra_rows * subframes_);
    check_numbers(s.frames <= s.mel.rows + s.mel_rows * subframes_);
    check_numbers(s.frames <= s.cycles.rows + s.logits_rows * subframes_);
    check_numbers(s.frames <= s.phase.rows + s.logits_rows * subframes_);
    check_numbers(s.frames <= s.noise.rows + s.noise_rows / hop);
    const std::int64_t total = s.frames * hop + overlap();
    check_numbers(s.out_begin >= 0 && s.out_begin <= total && s.out_rows >= 0);
    check_numbers(s.out_rows <= total - s.out_begin);
    return lay_out(s, nullptr).bytes;
}

double SynthesisNetwork::cycles(const float* logits) const noexcept {
    const auto count = static_cast<std::int64_t>(pitch_.size());
    std::int64_t best = 0;
    float all = 0;  // NaN, if one of them is NaN or infinite
    for (std::int64_t i = 0; i < count; ++i) {
        if (logits[i] > logits[best]) best = i;
        all += 0.0f * logits[i];
    }
    double sum = 0, weights = 0;
    const std::int64_t end = std::min(best + near_ + 1, count);
    for (std::int64_t i = std::max<std::int64_t>(best - near_, 0); i < end; ++i) {
        const double weight = std::exp(static_cast<double>(logits[i]) - logits[best]);
        weights += weight;
        sum += weight * pitch_[static_cast<std::size_t>(i)];
    }
    return std::nearbyint((std::exp(sum / weights) + all) * steps_a_hertz_) * step_;
}

void SynthesisNetwork::run(const SynthesisStep& s, char* arena, float* state, const float* logits,
                           const float* spectra, const float* mel, const float* noise,
                           float* out) const noexcept {
    const Rooms rooms = lay_out(s, arena);
    const FlushDenormals flush;
    const std::int64_t hop = tables_.hop_length, bands = tables_.n_mels;
    const std::int64_t pitches = s.logits_rows * subframes_;
    // The pitch: sums of multiples of 2^-20 are exact, as floats below 1, too.
    float* const cycled = rooms.cycles + s.cycles.rows + pitches;
    float* const phased = rooms.phase + s.phase.rows + pitches;
    double phase = state[s.phase_state];
    for (std::int64_t i = 0; i < pitches; ++i) {
        const double now = cycles(logits + i * static_cast<std::int64_t>(pitch_.size()));
        phase = std::fmod(phase + now, 1.0);
        cycled[i] = static_cast<float>(now);
        phased[i] = static_cast<float>(phase);
    }
    state[s.phase_state] = static_cast<float>(phase);
    const float* const own_cycles =
        join(rooms.cycles, state + s.cycles.state, s.cycles, cycled, pitches, 1);
    const float* const own_phase =
        join(rooms.phase, state + s.phase.state, s.phase, phased, pitches, 1);
    for (std::int64_t i = 0; i < s.frames; ++i) {
        rooms.periods[i] = own_cycles[i];
        rooms.middles[i] = own_phase[i];
    }
    // Each frame's mel is that of all its sub-frames.
    for (std::int64_t i = 0; i < s.mel_rows * subframes_; ++i)
        std::memcpy(rooms.mels + i * bands, mel + i / subframes_ * bands, bytes_of(bands));
    const float* const stated = join(rooms.mel, state + s.mel.state, s.mel, rooms.mels,
                                     s.mel_rows * subframes_, bands);
    const float* const filters = join(rooms.spectra, state + s.spectra.state, s.spectra, spectra,
                                      s.spectra_rows * subframes_, 3 * bins());
    // The newest samples of noise at the end of every hop; zeros before the first.
    const std::int64_t before = overlap() - s.heard.rows;
    std::memset(rooms.samples, 0, bytes_of(before));
    const float* const samples = join(rooms.samples + before, state + s.heard.state, s.heard, noise,
                                      s.noise_rows, 1);
    if (samples == noise) std::memcpy(rooms.samples + before, noise, bytes_of(s.noise_rows));
    const std::int64_t hops = s.noise_rows / hop;
    for (std::int64_t i = 0; i < hops; ++i)
        std::memcpy(rooms.heard + i * length(), rooms.samples + i * hop, bytes_of(length()));
    const float* const air =
        join(rooms.noise, state + s.noise.state, s.noise, rooms.heard, hops, length());

    float* const past = state + s.overlap_state;
    std::memset(rooms.sum, 0, bytes_of(s.frames * hop + overlap()));
    std::memcpy(rooms.sum, past, bytes_of(overlap()));
    for (std::int64_t i = 0; i < s.frames; i += MOST_FRAMES) {
        const std::int64_t frames = std::min<std::int64_t>(s.frames - i, MOST_FRAMES);
        set_.of(frames).synthesize({&tables_, frames, rooms.periods + i, rooms.middles + i,
                                    filters + i * 3 * bins(), stated + i * bands,
                                    air + i * length(), rooms.sum + i * hop, rooms.scratch});
    }
    std::memcpy(past, rooms.sum + s.frames * hop, bytes_of(overlap()));
    if (s.out_rows > 0) std::memcpy(out, rooms.sum + s.out_begin, bytes_of(s.out_rows));
}

}  // namespace wavewn
