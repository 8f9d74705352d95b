"""Speech to train on: where a corpus's files lie, the manifest that lists them, and batches.

`corpora/` finds the recordings of a source, `scan.py` opens each of them once, `manifest.py`
splits and keeps the result, `predicted.py` pairs recordings with an acoustic model's mels,
`crops.py` makes batches of what a manifest lists, and `module.py` gives them to Lightning.
"""
