"""Judging vocoders: distances to the recording, the Griffin-Lim baseline, tables and pictures."""
