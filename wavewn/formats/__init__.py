"""Checkpoints of other programs, read as data: one file a family, and `found.py` that asks each."""
