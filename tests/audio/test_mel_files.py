import pickle
import sys
import zipfile

import numpy as np
import pytest
import torch

from wavewn.audio.mel import MelSpec
from wavewn.audio.mel_files import load_mel
from wavewn.errors import MelError

MEL = np.random.default_rng(0).uniform(-11, 1, (80, 30)).astype(np.float32)
OTHER = np.zeros(3, np.float32)


def save_h5(path, arrays):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[key] = value


WRITERS = {
    "a.npy": lambda path: np.save(path, MEL),
    "half.npy": lambda path: np.save(path, MEL.astype(np.float16)),
    "double.npy": lambda path: np.save(path, MEL.astype(np.float64)),
    "big_endian.npy": lambda path: np.save(path, MEL.astype(">f4")),
    "batch.npy": lambda path: np.save(path, MEL[None]),
    "one.npz": lambda path: np.savez(path, whatever=MEL),
    "mel.npz": lambda path: np.savez_compressed(path, mel=MEL, other=OTHER),
    "tensor.pt": lambda path: torch.save(torch.from_numpy(MEL), path),
    "batch.pt": lambda path: torch.save(torch.from_numpy(MEL)[None], path),
    "dict.pth": lambda path: torch.save({"mel": torch.from_numpy(MEL), "step": 3}, path),
    "old.pt": lambda path: torch.save(
        torch.from_numpy(MEL), path, _use_new_zipfile_serialization=False
    ),
    "parameter.pt": lambda path: torch.save(torch.nn.Parameter(torch.from_numpy(MEL)), path),
    "mel.h5": lambda path: save_h5(path, {"mel": MEL, "wave": OTHER}),
    "feats.h5": lambda path: save_h5(path, {"feats": MEL, "wave": OTHER}),
    "one.hdf5": lambda path: save_h5(path, {"x": MEL}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_mel(tmp_path, name):
    WRITERS[name](tmp_path / name)
    mel = load_mel(tmp_path / name, MelSpec())
    assert mel.dtype == torch.float32 and mel.shape == (80, 30) and not mel.requires_grad
    tolerance = 5e-3 if name == "half.npy" else 0
    assert np.abs(mel.numpy() - MEL).max() <= tolerance


@pytest.mark.parametrize("name", ["a.npy", "one.npz", "mel.npz", "tensor.pt", "old.pt", "mel.h5"])
@pytest.mark.parametrize("left", [0.0, 0.01, 0.5, 0.95])
def test_a_truncated_file_is_a_mel_error(tmp_path, name, left):
    path = tmp_path / name
    WRITERS[name](path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole))])
    with pytest.raises(MelError, match="cannot be read .* save it again"):
        load_mel(path)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.pt", "a.h5"])
def test_text_under_a_mels_name_is_a_mel_error(tmp_path, name):
    (tmp_path / name).write_text("not a mel\n" * 50)
    with pytest.raises(MelError, match="cannot be read"):
        load_mel(tmp_path / name)


@pytest.mark.parametrize("shape", ["(80, 1000000000000)", "((((", "'''"])
def test_a_header_that_lies_is_a_mel_error(tmp_path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
    (tmp_path / "a.npy").write_bytes(start + header.encode() + bytes(64))
    with pytest.raises(MelError, match="cannot be read"):
        load_mel(tmp_path / "a.npy")


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_malicious_pickle_is_refused_and_nothing_runs(tmp_path):
    trace = tmp_path / "trace"
    torch.save({"mel": Malicious(trace)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Malicious(trace), protocol=2))
    np.save(tmp_path / "c.npy", np.array([Malicious(trace)], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "d.npz", mel=np.array([Malicious(trace)], dtype=object))
    trace.unlink(missing_ok=True)
    for name in ("a.pt", "b.pt", "c.npy", "d.npz"):
        with pytest.raises(MelError, match="cannot be read") as caught:
            load_mel(tmp_path / name)
        assert "weights_only" not in str(caught.value)  # no advice to switch it off
        assert not trace.exists()
    pickle.loads((tmp_path / "b.pt").read_bytes()).close()
    assert trace.exists()  # so that the lines above can fail


def test_a_transposed_mel_is_refused_with_its_cause_and_file(tmp_path):
    np.save(tmp_path / "a.npy", MEL.T)
    with pytest.raises(MelError, match=r"a\.npy: the mel is transposed"):
        load_mel(tmp_path / "a.npy", MelSpec())


@pytest.mark.parametrize(
    ("array", "cause"),
    [
        (np.zeros((2, 80, 5), np.float32), r"got \[2, 80, 5\]"),
        (np.zeros(80, np.float32), r"got \[80\]"),
        (np.zeros((80, 0), np.float32), r"got \[80, 0\]"),
        (np.zeros((80, 5), np.int16), "floating point numbers, got int16"),
        (np.zeros((80, 5), np.complex64), "floating point numbers, got complex64"),
    ],
)
def test_what_is_not_a_mel_is_refused(tmp_path, array, cause):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(MelError, match=cause):
        load_mel(tmp_path / "a.npy")


def test_several_arrays_without_a_name_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=MEL, y=OTHER)
    with pytest.raises(MelError, match=r"holds \['x', 'y'\], which of them is the mel"):
        load_mel(tmp_path / "a.npz")
    torch.save([torch.zeros(80, 3)], tmp_path / "a.pt")
    with pytest.raises(MelError, match="got list"):
        load_mel(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    with pytest.raises(MelError, match=r"holds \[\]"):
        load_mel(tmp_path / "empty.npz")


def test_a_missing_file_a_folder_and_a_strange_name_are_refused(tmp_path):
    with pytest.raises(MelError, match="no such file"):
        load_mel(tmp_path / "a.npy")
    (tmp_path / "b.npy").mkdir()
    with pytest.raises(MelError, match="no such file"):
        load_mel(tmp_path / "b.npy")
    with pytest.raises(MelError, match="'.txt'; expected one of .npy"):
        load_mel(tmp_path / "c.txt")


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.h5").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MelError, match=r"pip install wavewn\[h5\]"):
        load_mel(tmp_path / "a.h5")
