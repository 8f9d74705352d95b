"""The picture shows each sound once, on one scale."""

import pytest
import torch

from wavewn.errors import DataError
from wavewn.evaluation.figures import RANGE_DB, draw_spectrograms, save_spectrograms

RATE = 16_000


def test_all_sounds_share_the_scale_of_the_first(voice):
    sounds = {"recording": voice(seconds=0.3), "weak": 0.01 * voice(seconds=0.2)}
    figure = draw_spectrograms(sounds, RATE)
    panels = [panel for panel in figure.axes if panel.images]
    assert [panel.get_title() for panel in panels] == ["recording", "weak"]
    limits = {panel.images[0].get_clim() for panel in panels}
    assert len(limits) == 1
    low, high = limits.pop()
    assert high - low == pytest.approx(RANGE_DB)
    arrays = [panel.images[0].get_array() for panel in panels]
    assert arrays[0].max() - arrays[1].max() == pytest.approx(40, abs=3)


def test_a_tone_is_drawn_at_its_frequency():
    tone = torch.sin(2 * torch.pi * 2000 * torch.arange(RATE) / RATE)
    image = draw_spectrograms({"tone": tone}, RATE).axes[0].images[0]
    bins = image.get_array().mean(axis=1)
    assert bins.argmax() / (len(bins) - 1) * image.get_extent()[3] == pytest.approx(2.0, abs=0.02)


def test_a_png_is_written_whole(voice, tmp_path):
    path = tmp_path / "new" / "picture.png"
    save_spectrograms(path, {"recording": voice(seconds=0.3), "silence": torch.zeros(10)}, RATE)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [one.name for one in path.parent.iterdir()] == ["picture.png"]


def test_nothing_to_draw_is_an_error():
    with pytest.raises(DataError, match="at least one sound"):
        draw_spectrograms({}, RATE)
