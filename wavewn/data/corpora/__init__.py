"""Where the recordings of a corpus lie, with speaker and transcript where the corpus states them.

    catalogue.py   corpora by name, folders by layout; `find` is the way in
    folders.py     a plain folder of recordings
    tables.py      file lists, LJSpeech, Hugging Face metadata, Kaldi
    published.py   LibriTTS, VCTK, CSMSC, JSUT
    packages.py    festvox-ru and Asterisk's sounds, from Debian's packages
    g722.py        the one kind of recording that is decoded beforehand

Each `list_*` function names files in order and opens no audio: `scan.py` does. The order is that
of paths, or of the lines where the corpus comes with a list.
"""

from wavewn.data.corpora.catalogue import NAMED, Source, find, find_source

__all__ = ["NAMED", "Source", "find", "find_source"]
