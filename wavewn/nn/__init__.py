"""Layers: weight norm, causal convolutions, the gated stack, upsampling."""
