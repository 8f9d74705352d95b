import numpy as np
import pytest
import soundfile as sf


@pytest.fixture
def sines(tmp_path):
    """Lay out sine waves of 0.6 s under the given names below tmp_path."""

    def make(*names, root=tmp_path, rate=8000):
        for number, name in enumerate(names):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            time = np.arange(int(0.6 * rate)) / rate
            sf.write(path, 0.3 * np.sin(2 * np.pi * (200 + 10 * number) * time), rate)
        return root

    return make
