// See spectral_chunk.hpp.

#include "spectral_chunk.hpp"

#include <algorithm>
#include <utility>

namespace wavewn {

SpectralChunk::SpectralChunk(Parts parts, std::int64_t state)
    : parts_(std::move(parts)), state_(state) {
    const SynthesisStep& s = parts_.filters;
    work_ = parts_.synthesis.check(s, state);
    const std::int64_t logits = s.logits_rows * parts_.synthesis.logits();
    const std::int64_t spectra = s.spectra_rows * parts_.synthesis.spectra();
    for (const auto& [program, given] :
         {std::pair{&parts_.pitch, logits}, std::pair{&parts_.envelopes, spectra}}) {
        const OnePassProgram::Sizes& sizes = program->sizes();
        check_numbers(sizes.state == state && sizes.mel == mel_rows() * n_mels());
        check_numbers(sizes.drive == 0 && sizes.audio == given);
        work_ = std::max(work_, static_cast<std::size_t>(sizes.arena));
    }
    if (!parts_.levellings.empty()) {
        check_numbers(parts_.levelling.n_mels() == n_mels());
        work_ = std::max(work_, parts_.levelling.check(parts_.levellings, state, mel_rows(),
                                                       s.out_rows, out_rows()));
    }
    bytes_ = lay_out(nullptr).bytes;
}

std::int64_t SpectralChunk::out_rows() const {
    return parts_.levellings.empty() ? parts_.filters.out_rows : parts_.levellings.back().out_rows;
}

SpectralChunk::Rooms SpectralChunk::lay_out(char* arena) const {
    Pieces pieces(arena);
    Rooms rooms{};
    rooms.mel = pieces.take(mel_rows() * n_mels());
    rooms.logits = pieces.take(parts_.pitch.sizes().audio);
    rooms.spectra = pieces.take(parts_.envelopes.sizes().audio);
    rooms.audio = pieces.take(parts_.filters.out_rows);
    rooms.work = pieces.take(static_cast<std::int64_t>(work_ / sizeof(float) + 1));
    rooms.bytes = pieces.bytes();
    return rooms;
}

void SpectralChunk::run(Workers& workers, char* arena, float* state, const float* mel,
                        const float* noise, float* out) const noexcept {
    const Rooms rooms = lay_out(arena);
    auto* const work = reinterpret_cast<char*>(rooms.work);
    const std::int64_t count = mel_rows() * n_mels();
    for (std::int64_t i = 0; i < count; ++i)
        rooms.mel[i] = (mel[i] - parts_.silence) / parts_.scale;
    parts_.pitch.run(workers, work, state, rooms.mel, nullptr, rooms.logits);
    parts_.envelopes.run(workers, work, state, rooms.mel, nullptr, rooms.spectra);
    float* const audio = parts_.levellings.empty() ? out : rooms.audio;
    parts_.synthesis.run(parts_.filters, work, state, rooms.logits, rooms.spectra, mel, noise, audio);
    if (!parts_.levellings.empty())
        parts_.levelling.run(parts_.levellings, work, state, mel, mel_rows(), audio, out);
}

}  // namespace wavewn
