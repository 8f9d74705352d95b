#include "block.hpp"
//
#include "samples.hpp"

extern "C" __global__ void __launch_bounds__(WAVEWN_THREADS, 1)
wavewn_samples(const wavewn::Word* weights, const float* constants, float* state,
               const long long* clock, const float* gates, const float* upsampled,
               const float* predictors, const float* noise, const float* forced, float* audio,
               float* parameters, long long* broken, long long batch, long long samples,
               float temperature, float log_scale_min, float pre_emphasis) {
    extern __shared__ wavewn::Word memory[];
    wavewn::Block block{reinterpret_cast<char*>(memory)};
    const wavewn::Arguments arguments{
        weights, constants, state, clock, gates, upsampled, predictors, noise, forced, audio,
        parameters, broken, batch, samples, temperature, log_scale_min, pre_emphasis};
    wavewn::wavenet_samples<wavewn::Shape>(block, arguments);
}
