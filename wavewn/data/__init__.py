"""Speech to train on: where a corpus's files lie, the manifest that lists them, and batches.

`corpora.py` finds the recordings of a source, `scan.py` opens each of them once, `manifest.py`
splits and keeps the result, and `module.py` crops and batches what a manifest lists.
"""
