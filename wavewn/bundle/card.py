"""The model card: what a bundle tells people."""

from collections.abc import Mapping
from typing import Any

MADE_CARD = "<!-- Made by `wavewn export`. Without this line the card is yours and is kept. -->"


def model_card(name: str, config: Mapping[str, Any]) -> str:
    """Write the model card of a bundle from its config."""
    mel = config["mel"]
    facts = {
        "Model": _model(config["model"]),
        "Mels": f"{mel['n_mels']} bands, {mel['f_min']:g} to {mel['f_max']:g} Hz, "
        f"hop {mel['hop_length']}, at {mel['sample_rate']} Hz",
        **_levellings(config.get("levellings", 0)),
        "Speakers": ", ".join(config["speakers"]) or "one",
        "Licence": config["licence"] or "not stated",
        **{str(key).replace("_", " "): value for key, value in config["provenance"].items()},
    }
    lines = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    usage = f"wavewn synth {name} recording.wav -o out"
    return f"{MADE_CARD}\n\n# {name}\n\n{lines}\n\n```bash\n{usage}\n```\n"


def _levellings(count: int) -> dict[str, str]:
    if not count:
        return {}
    return {"Levellings": f"{count}, of the audio to its mel"}


def _model(settings: Mapping[str, Any]) -> str:
    """Describe a model by its kind and its sizes."""
    if settings["kind"] == "wavenet":
        layers = settings["cycles"] * settings["layers_per_cycle"]
        return (
            f"WaveNet, {layers} layers, R={settings['residual_channels']}, "
            f"S={settings['skip_channels']}, head {settings['head']['kind']}"
        )
    if settings["kind"] == "smoothed-wavenet":
        return f"{_model(settings['network'])}, of stretched and smoothed mels"
    width = settings.get("channels", settings.get("residual_channels"))
    causal = ", causal" if settings.get("causal") else ""
    return f"{settings['kind']}, {width} channels{causal}; it makes all audio in one pass"
