"""Engines: what runs a model sample by sample, and the stream that users hold."""
