// The sizes of a network, all known to the compiler, and where everything lies that follows from
// them: a stream's memory, the block's shared memory, the packed weights.
//
// The macros are made by engine/cuda_packing.py. Twin of the state's offsets: engine/weights.py,
// `wavenet_layout`; tests/engine/test_cuda.py compares them.

#pragma once

#ifdef __CUDACC_RTC__
#define WAVEWN_DEVICE __device__ __forceinline__
#define WAVEWN_UNROLL _Pragma("unroll")
#define WAVEWN_ROLL _Pragma("unroll 1")
#else  // the tests' host
#define WAVEWN_DEVICE inline
#define WAVEWN_UNROLL
#define WAVEWN_ROLL
#endif

namespace wavewn {

using Int64 = long long;

WAVEWN_DEVICE constexpr int padded(int count, int multiple) {
    return (count + multiple - 1) / multiple * multiple;
}
WAVEWN_DEVICE constexpr int least(int a, int b) { return a < b ? a : b; }
WAVEWN_DEVICE constexpr int most(int a, int b) { return a < b ? b : a; }

constexpr int LANES = 32;  // threads of a warp
constexpr int TILE = 16;   // a tile of a matrix is so many outputs by so many inputs

// Upsampling of the condition, as engine/packing.py numbers it.
constexpr int NEAREST = 0, LINEAR = 1, TRANSPOSED = 2;
// Heads, likewise.
constexpr int MU_LAW = 0, MIXTURE = 1, GAUSSIAN = 2;

struct Sizes {
    static constexpr int streams = WAVEWN_STREAMS;  // of a block: 1, 2, 4 or 8
    static constexpr int threads = WAVEWN_THREADS;
    static constexpr int warps = threads / LANES;
    static constexpr bool half = WAVEWN_HALF;    // weights and what they meet; else float32
    static constexpr int ahead = WAVEWN_AHEAD;   // tiles that a warp fetches before it needs them
    static constexpr int resident = WAVEWN_RESIDENT;  // tiles that stay in shared memory

    // named as in config.py
    static constexpr int residual = WAVEWN_RESIDUAL, skip = WAVEWN_SKIP, hidden = WAVEWN_HIDDEN;
    static constexpr int taps = WAVEWN_TAPS, layers = WAVEWN_LAYERS;
    static constexpr int layers_per_cycle = WAVEWN_LAYERS_PER_CYCLE;
    static constexpr int hop = WAVEWN_HOP, upsampling = WAVEWN_UPSAMPLING;
    static constexpr int head = WAVEWN_HEAD, components = WAVEWN_COMPONENTS;
    static constexpr int parameters = WAVEWN_PARAMETERS, draws = WAVEWN_DRAWS;
    static constexpr int features = WAVEWN_FEATURES;
    static constexpr int order = WAVEWN_ORDER, longest = WAVEWN_LONGEST;  // 0: no lags
    static constexpr int lags = WAVEWN_LAGS;

    // What a stream remembers, in floats from the beginning of its row.
    static constexpr int levels_kept = most(order, 1), residuals_kept = most(longest, 1);
    static constexpr int level_at = 0;
    static constexpr int emphasis_at = padded(levels_kept, TILE);
    static constexpr int ahead_at = emphasis_at + TILE;
    static constexpr int residual_at = ahead_at + TILE;
    static constexpr int condition_at = residual_at + (order ? padded(residuals_kept, TILE) : 0);
    static WAVEWN_DEVICE constexpr Int64 mel_at(int index) {
        Int64 at = condition_at + padded(WAVEWN_CHANNELS, TILE);
        for (int i = 0; i < index; ++i)
            at += padded((WAVEWN_MEL_TAPS - 1) * (i ? WAVEWN_CHANNELS : WAVEWN_BANDS), TILE);
        return at;
    }
    static WAVEWN_DEVICE constexpr int dilation_bits(int layer) { return layer % layers_per_cycle; }
    static WAVEWN_DEVICE constexpr Int64 ring_at(int layer) {
        Int64 at = mel_at(WAVEWN_MEL_LAYERS);
        for (int i = 0; i < layer; ++i)
            at += padded(((taps - 1) << dilation_bits(i)) * residual, TILE);
        return at;
    }

    // Operands: rows of a stream in shared memory, padded with zeros to whole tiles. A gate reads
    // the condition of a sample (learned upsampling only), the older taps, and the input itself.
    static constexpr int channels = upsampling == TRANSPOSED ? WAVEWN_CHANNELS : 0;
    static constexpr int wide_channels = padded(channels, TILE);
    static constexpr int wide_residual = padded(residual, TILE);
    static constexpr int wide_skip = padded(skip, TILE), wide_hidden = padded(hidden, TILE);
    static constexpr int wide_parameters = padded(parameters, TILE);
    static constexpr int past_at = wide_channels;
    static constexpr int input_at = past_at + (taps - 1) * wide_residual;
    static constexpr int gate_inputs = input_at + wide_residual;

    // From one stream's row of an operand to the next: eight lanes that read eight rows then meet
    // all banks of shared memory.
    static WAVEWN_DEVICE constexpr int stride(int inputs) { return padded(inputs, 64) + TILE; }
    static constexpr int operand_bytes = half ? 2 : 4;
    static WAVEWN_DEVICE constexpr int operand_row(int inputs) {
        return stride(inputs) * operand_bytes * streams;
    }

};

struct Shape : Sizes {
    static constexpr Int64 state_size = ring_at(layers);

    // A stream's numbers in shared memory.
    static constexpr int predictor_width = order + lags + 3;  // and scale, log scale, gain
    static constexpr int predictor_row = order ? padded(predictor_width, 4) : 0;

    // Shared memory, in bytes from its beginning; everything begins at a multiple of 16.
    static constexpr int tile_bytes = TILE * TILE * operand_bytes;
    static constexpr int gate_at = resident * tile_bytes;
    static constexpr int z_at = gate_at + operand_row(gate_inputs);
    static constexpr int skips_at = z_at + operand_row(wide_residual);
    static constexpr int hidden_at = skips_at + operand_row(wide_skip);
    static constexpr int answer_at = hidden_at + operand_row(wide_hidden);
    static constexpr int voices_at = answer_at + streams * wide_parameters * 4;
    static constexpr int predictors_at = voices_at + streams * 64;
    static constexpr int levels_at = predictors_at + streams * predictor_row * 4;
    static constexpr int level_row = padded(levels_kept, 4);
    static constexpr int residuals_at = levels_at + streams * level_row * 4;
    static constexpr int residual_row = order ? padded(residuals_kept, 4) : 0;
    static constexpr int rings_at = residuals_at + streams * residual_row * 4;
    static constexpr int shared_bytes = rings_at + padded(layers * 8, 16);

    // Constants, in floats from their beginning: the weights of the features and the bias of the
    // input, the residual's biases layer after layer, the sum of the skips' biases, the head's.
    static constexpr int input_bias_at = features * wide_residual;
    static constexpr int residual_bias_at = input_bias_at + wide_residual;
    static constexpr int skip_bias_at = residual_bias_at + layers * wide_residual;
    static constexpr int hidden_bias_at = skip_bias_at + wide_skip;
    static constexpr int output_bias_at = hidden_bias_at + wide_hidden;
    static constexpr int constants = output_bias_at + wide_parameters;
};

}  // namespace wavewn
