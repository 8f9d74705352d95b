// The cuda engine's kernel: a WaveNet runs sample after sample in one launch. Start here.
//
// The idea. A sample needs all weights once, one product after another, and the next sample needs
// this one: nothing but a short chain of small products, whose speed is latency and the rate at
// which weights arrive. So a block of threads takes a few streams and never gives control back: no
// launch, no grid-wide barrier, and nothing in device memory between two layers. What a
// multiprocessor can hold of the weights stays in its shared memory, in the order of use, as far as
// it goes; the rest comes from L2, sixteen bytes a thread and load, fetched while the product
// before is computed. Everything that is known of a model is known to the compiler: the kernel is
// made for it at run time (engine/nvrtc.py).
//
// The files, in the order of reading:
//
//     block.hpp     what threads do alone and together; the tests' host has another one
//     shape.hpp     sizes and places
//     products.hpp  y = W x, tile by tile: on tensor cores in float16, by FMA in float32
//     sampling.hpp  from the head's parameters and noise to a level; predictions
//     desk.hpp      where a block's things lie, and what is fetched before it is needed
//     network.hpp   input, layers, head
//     samples.hpp   a launch
//
// A layer takes two barriers: all of z must be there before the residual, all of x before the next
// gate. Between them, in this order of urgency:
//
//     gate      fetch W_res, W_skip; ask for the next layer's old rows;    z = act(W [old rows, x])
//     output    fetch the next gate; ask for its condition;    x += W_res z;    skips += W_skip z
//
// The sums of skips stay in registers through all layers, the residual in those of the lanes that
// compute it, in float32; shared memory has copies as operands, in the precision of the weights.
// The condition is projected once a frame, outside (engine/cuda_frames.py), and interpolated in the
// lane that activates; under learned upsampling it has a value a sample and is an input of the
// gates.
//
// Streams. A block has 1, 2, 4 or 8 of them, a constant. A tensor core multiplies eight streams in
// the time of one, so in float16 company is free until there are more blocks than multiprocessors.
// Every stream has a clock and ring slots of its own, is summed in an order that does not depend on
// the others, and breaks alone: where a number is not finite it says at which sample, and stands
// still.
//
// What it costs, by estimate: nothing has run on a GPU yet. One H100, 64 bytes a clock from L2 to a
// multiprocessor, 1.755 GHz:
//
//     shape M, float16: 1.7 MB, of which 0.21 MB stay; 1.5 MB / 64 = 23,000 clocks a sample, or
//     75,000 samples a second. The chain of dependent steps, 20 x 450 + head 2,500 = 11,500 clocks,
//     hides behind. Eight streams a block: the same, so 64 streams at 24 kHz take 8 of 132
//     multiprocessors.
//     shape M, float32: 3.4 MB, 50,000 clocks, 35,000 samples a second; FMA binds from 4 streams
//     on.
//     shape S, float16: 0.27 MB, nearly all of which stays: the chain, 16 x 450 + 2,000 clocks,
//     190,000 samples a second.
//     L2 gives 5.5 TB/s in all, 49 multiprocessors' worth of streaming: more blocks slow each
//     other.
//
// The cluster kernel that might follow, a plan and no code. Shape M is bound by what one
// multiprocessor can hold, so spread it: a thread-block cluster of nine or ten blocks (sm_90), each
// with two or three whole layers in its 227 KB, two for the head. By layer and not by channel,
// since a layer within a block takes two barriers of 30 clocks, and a gather over a cluster several
// hundred. The token, x of [streams, R], goes round the ring: the block that ends its last layer
// pushes it to the next one's shared memory by st.async, sixteen bytes a lane, which counts bytes
// on an mbarrier there (expect_tx armed one token ahead, two mailboxes in turn); the next waits
// with try_wait. Never a cluster-wide barrier in the loop: it compiles to MEMBAR.ALL.GPU. Each
// block pushes its part of the skips to the head's slots; the head sends one level back. With M
// tokens in the ring, M groups of eight streams run at once. By estimate, with 230 clocks a hop: 20
// x 175 + 9 x 230 + 900 = 6,500 clocks, 150,000 to 220,000 samples a second. To be measured first,
// and what decides: a ring of st.async and mbarrier alone; then this kernel on the same GPU, and
// nv-wavenet. If a hop takes more than 350 clocks, fewer blocks with int8 weights do better, and
// the plan is dropped.
//
// Twins: engine/workspace.py for a frame, engine/cuda_packing.py for the packing, csrc/network.hpp
// for the CPU's kernel. Test: tests/engine/test_contract.py, through tests/csrc/cuda_host.cpp.

#include "block.hpp"
// What follows uses the block, and does not say which.
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
