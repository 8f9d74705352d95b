"""Vocoder networks and their output distributions."""
