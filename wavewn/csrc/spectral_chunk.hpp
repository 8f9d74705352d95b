// A chunk of the spectral model in one call: what reads F0, what draws the envelopes, the source and
// the filters, the levellings. Between them lies nothing but memory: in a push of a few frames calls
// and tensors took as long as the arithmetic.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "onepass_program.hpp"
#include "spectrum_levelling.hpp"
#include "spectrum_synthesis.hpp"
#include "workers.hpp"

namespace wavewn {

class SpectralChunk {
   public:
    // All that a chunk's parts are; engine/onepass_spectral.py worked it out.
    struct Parts {
        const OnePassProgram& pitch;
        const OnePassProgram& envelopes;
        const SynthesisNetwork& synthesis;
        SynthesisStep filters;
        const LevellingNetwork& levelling;
        std::vector<LevellingStep> levellings;  // may be none
        float silence, scale;                   // the layers read (mel - silence) / scale
    };
    // Throws std::invalid_argument where they do not go together.
    SpectralChunk(Parts parts, std::int64_t state);

    std::int64_t state() const { return state_; }
    std::int64_t mel_rows() const { return parts_.filters.mel_rows; }
    std::int64_t n_mels() const { return parts_.synthesis.n_mels(); }
    std::int64_t noise_rows() const { return parts_.filters.noise_rows; }
    std::int64_t out_rows() const;
    std::size_t bytes() const { return bytes_; }  // of an arena

    // One stream; mel [mel_rows, n_mels]. Allocates nothing.
    void run(Workers&, char* arena, float* state, const float* mel, const float* noise,
             float* out) const noexcept;

   private:
    struct Rooms {
        float *mel, *logits, *spectra, *audio, *work;
        std::size_t bytes;
    };
    Rooms lay_out(char* arena) const;

    const Parts parts_;
    const std::int64_t state_;
    std::size_t work_ = 0;  // bytes of the largest part's own arena
    std::size_t bytes_ = 0;
};

}  // namespace wavewn
