"""What a bundle says about its precisions comes back, and nonsense is refused."""

import json

import pytest

from wavewn.bundle import Calibration, calibration_of, load_bundle, save_bundle
from wavewn.errors import BundleError, ConfigError

LAYERS, CHANNELS = 3, 8  # of the tiny model
CALIBRATION = Calibration(((1.5,) * CHANNELS,) * LAYERS, 2.0, 3.25, fine=2)
VERDICT = {
    "float32": {"usable": True, "nats": 4.25},
    "float16": {"usable": False, "excess_nats": 0.25, "reason": "too far"},
    "int8": {"usable": True, "excess_nats": 0.001},
}


@pytest.fixture
def folder(tmp_path, small, spec):
    save_bundle(tmp_path / "v", small(), spec, verdict=VERDICT, calibration=CALIBRATION)
    return tmp_path / "v"


def test_verdicts_and_calibration_come_back(folder):
    config = load_bundle(folder).config

    assert config["verdict"] == VERDICT
    assert calibration_of(config) == CALIBRATION


def test_a_bundle_without_a_calibration_has_none(tmp_path, small, spec):
    save_bundle(tmp_path / "v", small(), spec)
    config = load_bundle(tmp_path / "v").config

    assert calibration_of(config) is None
    assert config["verdict"] == {"float32": {"usable": True}}
    assert config["statistics"] == {}


def test_a_layer_of_magnitudes_is_one_line(folder):
    lines = [line.strip() for line in (folder / "config.json").read_text().splitlines()]

    assert lines.count("[ " + ", ".join(["1.5"] * CHANNELS) + " ]") == 1
    assert lines.count("[ " + ", ".join(["1.5"] * CHANNELS) + " ],") == LAYERS - 1


def test_texts_that_look_like_lists_are_left_alone(tmp_path, small, spec):
    odd = "[\n  1,\n  2\n]"
    save_bundle(tmp_path / "v", small(), spec, licence=odd)

    assert load_bundle(tmp_path / "v").config["licence"] == odd


def test_int8_is_not_usable_without_a_calibration(tmp_path, small, spec):
    with pytest.raises(BundleError, match="no calibration of it"):
        save_bundle(tmp_path / "v", small(), spec, verdict=VERDICT)
    assert not (tmp_path / "v").exists()


GOOD = CALIBRATION.to_dict()
LAYER = [1.0] * CHANNELS


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ([], "expected the keys fine, hidden, inputs, skip"),
        ({"skip": 1.0}, "expected the keys"),
        ({**GOOD, "more": 1}, "expected the keys"),
        ({**GOOD, "inputs": 1.0}, "a list for each layer"),
        ({**GOOD, "inputs": [1.0]}, "a list for each layer"),
        ({**GOOD, "inputs": [LAYER] * (LAYERS - 1)}, "must be 3 layers of 8 magnitudes"),
        ({**GOOD, "inputs": [LAYER, LAYER, LAYER[1:]]}, "must be 3 layers of 8 magnitudes"),
        ({**GOOD, "inputs": [LAYER, LAYER, [0.0, *LAYER[1:]]]}, "got 0.0"),
        ({**GOOD, "skip": -1.0}, "got -1.0"),
        ({**GOOD, "skip": True}, "got True"),
        ({**GOOD, "skip": "1"}, "got '1'"),
        ({**GOOD, "hidden": float("nan")}, "got nan"),
        ({**GOOD, "hidden": float("inf")}, "got inf"),
        ({**GOOD, "hidden": 10**400}, "got 1000"),
        ({**GOOD, "hidden": None}, "got None"),
        ({**GOOD, "fine": -1}, "in 0 to 3, got -1"),
        ({**GOOD, "fine": 4}, "in 0 to 3, got 4"),
        ({**GOOD, "fine": 2.0}, "in 0 to 3, got 2.0"),
    ],
)
def test_a_foreign_calibration_is_checked(folder, stored, message):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["statistics"]["calibration"] = stored
    path.write_text(json.dumps(config))

    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        ({"int8": {"nats": 1.0}}, r"verdict\.int8\.usable must be true or false"),
        ({"float16": {"usable": 1}}, r"verdict\.float16\.usable must be true or false"),
        ({"int8": {"usable": False, "reason": 3}}, r"verdict\.int8\.reason must be a text"),
    ],
)
def test_a_foreign_verdict_is_checked(folder, verdict, message):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"verdict": verdict}))

    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


def test_a_calibration_is_checked_where_it_is_made():
    with pytest.raises(ConfigError, match="must be a number in 1e-20 to 1e"):
        Calibration(((1.0,),), 0.0, 1.0)
