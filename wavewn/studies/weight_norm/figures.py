"""One plot for each experiment; lines are medians over the seeds, bands their range.

What is exactly zero lies on the lowest line of a logarithmic axis, which says so.
"""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from wavewn.nn.norms import NORMS
from wavewn.studies.weight_norm.summary import (
    RECURRENT_TITLES,
    Figures,
    Study,
    dig,
    gap,
    middle,
    rates_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
ZERO = 1e-18  # where an exact zero is drawn
MARKS = "osD^vP*X<>hdp8"
# Recurrent variants wear the colours of their like in the default study.
RECURRENT_COLOURS = {"none": 0, "weight": 1, "layer": 4, "batch-input": 2, "batch-step": 6}


def colour(index: int) -> Any:
    """Return the colour of a norm, by its place in the study."""
    import matplotlib

    return matplotlib.colormaps["tab20"]((2 * index) % 20 + (2 * index) // 20)


def make_figure(title: str, columns: int, rows: int = 1) -> "tuple[Figure, Sequence[Axes]]":
    """Make a grid of panels on a canvas of its own; nothing global is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * columns, 4.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel in axes:
        panel.grid(True, alpha=0.3)
    return figure, axes


def draw_band(
    panel: "Axes", x: Sequence[float], found: Sequence[Figures | None], label: str, index: int
) -> None:
    """Draw one line with its band, leaving out what was not measured."""
    points = [(a, one) for a, one in zip(x, found, strict=True) if one]
    if not points:
        return
    places = [a for a, _ in points]
    low, mid, high = ([one[key] for _, one in points] for key in ("min", "median", "max"))
    mark = MARKS[index % len(MARKS)]
    panel.plot(places, mid, marker=mark, markersize=4, color=colour(index), label=label)
    panel.fill_between(places, low, high, color=colour(index), alpha=0.18, linewidth=0)


def draw_dots(
    panel: "Axes", study: Study, value: Callable[[Figures], float | None], floor: float = 0.0
) -> None:
    """Draw one row a norm, a dot a network; small batches are hollow."""
    from matplotlib.ticker import LogLocator

    norms = study.settings.norms
    for row, norm in enumerate(norms):
        for batch in study.ends:
            values = [value(one) for one in study.of(norm, batch)]
            found = [max(one, floor) if floor else one for one in values if one is not None]
            hollow = batch == study.ends[0] and len(study.ends) > 1
            face = "none" if hollow else colour(row)
            panel.plot(
                found, [row] * len(found), "o", markerfacecolor=face, markeredgecolor=colour(row)
            )
    panel.set_yticks(range(len(norms)), [NORMS[norm].title for norm in norms])
    panel.set_ylim(len(norms) - 0.5, -0.5)
    if floor:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(numticks=6))
        panel.set_xlim(floor / 4, None)
        panel.axvline(floor, color="grey", linewidth=0.8, linestyle=":")


def draw_legend(figure: "Figure", panel: "Axes") -> None:
    """Name the lines of a panel below all panels."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")


def _ends(study: Study) -> str:
    if len(study.ends) == 1:
        return f"batch {study.ends[0]}"
    return f"hollow: batch {study.ends[0]}, full: batch {study.ends[1]}"


def plot_leak(study: Study) -> "Figure":
    """E1: how far predictions move when only the future changes, or the rest of the batch."""
    figure, (time, batch) = make_figure("E1. What a prediction hears while training", 2)
    draw_dots(time, study, lambda one: dig(one, "flags", "leak_nats"), ZERO)
    time.set(title="the future of its own signal", xlabel="mean divergence in nats; dotted: 0")
    draw_dots(batch, study, lambda one: dig(one, "flags", "batch_leak"), ZERO)
    batch.set(title="the rest of its batch", xlabel="largest move of a logit; dotted: 0")
    batch.set_yticklabels([])
    figure.supxlabel(_ends(study), fontsize="small")
    return figure


def plot_batches(study: Study) -> "Figure":
    """E2: held-out loss against the batch size, and how far the two kinds of statistics differ."""
    figure, (steps, samples, apart) = make_figure("E2. Batch size", 3)
    batches = study.settings.batches
    for row, norm in enumerate(study.settings.norms):
        title = NORMS[norm].title
        for panel, when in ((steps, "equal_steps"), (samples, "equal_samples")):
            found = [study.middle(norm, batch, when, "eval") for batch in batches]
            draw_band(panel, batches, found, title, row)
        gaps = [
            middle(gap(one, "equal_samples") for one in study.of(norm, batch)) for batch in batches
        ]
        draw_band(apart, batches, gaps, title, row)
    for panel in (steps, samples, apart):
        panel.set_xscale("log", base=2)
        panel.set_xticks(batches, [str(batch) for batch in batches])
        panel.set_xlabel("batch size")
    steps.set(title=f"after {study.settings.steps} steps", ylabel="held-out nats a sample")
    samples.set(title="after equally many samples")
    apart.set(title="batch statistics minus running ones", ylabel="nats a sample")
    draw_legend(figure, steps)
    return figure


def plot_streaming(study: Study) -> "Figure":
    """E3: one sample at a time against whole passes."""
    figure, (live, trained) = make_figure("E3. One sample at a time, against a whole pass", 2)
    draw_dots(live, study, lambda one: dig(one, "flags", "stream_error"), ZERO)
    live.set(title="in evaluation", xlabel="largest difference of a logit, float64; dotted: 0")
    draw_dots(trained, study, lambda one: dig(one, "flags", "train_error"), ZERO)
    trained.set(title="in train mode", xlabel="largest difference of a logit, float64; dotted: 0")
    trained.set_yticklabels([])
    figure.supxlabel(_ends(study), fontsize="small")
    return figure


def plot_free(study: Study) -> "Figure":
    """E4: free-running samples against recordings."""
    figure, (spectrum, level) = make_figure("E4. Free-running samples against recordings", 2)
    draw_dots(spectrum, study, lambda one: dig(one, "free", "spectral_distance_db"))
    spectrum.set(title="long-term spectrum", xlabel="distance in dB; 0 is best")
    draw_dots(level, study, lambda one: dig(one, "free", "rms_ratio"))
    level.set(title="level", xlabel="RMS over that of recordings; 1 is best")
    level.axvline(1.0, color="grey", linewidth=0.8, linestyle=":")
    level.set_yticklabels([])
    figure.supxlabel(_ends(study), fontsize="small")
    return figure


def plot_shift(study: Study) -> "Figure":
    """E5: another level, and another speaker in the middle of a crop."""
    figure, panels = make_figure("E5. Change of level and of speaker", 2, len(study.ends))
    levels = [f"{gain:g}" for gain in study.settings.levels_db]
    for number, batch in enumerate(study.ends):
        level, change = panels[2 * number : 2 * number + 2]
        for row, norm in enumerate(study.settings.norms):
            title = NORMS[norm].title
            found = [study.middle(norm, batch, "shift", "level", gain, "eval") for gain in levels]
            draw_band(level, study.settings.levels_db, found, title, row)
            runs = [one for one in study.of(norm, batch) if dig(one, "shift")]
            by_manner = {
                style: [dig(one, "shift", "change", manner) for one in runs]
                for manner, style in (("eval", "-"), ("batch", ":"))
            }
            for style, by_bin in by_manner.items():
                if not runs or (style == ":" and by_bin == by_manner["-"]):
                    continue
                medians = [middle(column) for column in zip(*by_bin, strict=True)]
                change.plot(
                    dig(runs[0], "shift", "change", "samples"),
                    [one["median"] if one else float("nan") for one in medians],
                    style,
                    color=colour(row),
                    label=title if style == "-" else None,
                )
        level.set(title=f"batch {batch}: level", xlabel="change in dB (loud: clipped)")
        level.set_xticks(study.settings.levels_db)
        level.set_ylabel("held-out nats a sample")
        change.axvline(0, color="grey", linewidth=0.8)
        change.set(title=f"batch {batch}: speaker", xlabel="samples since the change")
        change.set_ylabel("solid: running, dotted: batch statistics")
    draw_legend(figure, panels[0])
    return figure


def plot_recurrent(study: Study) -> "Figure":
    """E6: a recurrent network beyond the length it was trained on."""
    s = study.settings
    figure, (panel,) = make_figure("E6. A recurrent network beyond its trained length", 1)
    for name in s.recurrent:
        runs = study.of(name, s.recurrent_batch, "recurrent")
        if not runs:
            continue
        bins = [middle(column) for column in zip(*(one["loss"] for one in runs), strict=True)]
        index = RECURRENT_COLOURS[name]
        draw_band(panel, runs[0]["samples"], bins, RECURRENT_TITLES[name], index)
    panel.axvline(s.recurrent_length, color="grey", linewidth=0.8)
    panel.set(xlabel="samples (line: trained length)", ylabel="held-out nats a sample")
    panel.legend(fontsize="small")
    return figure


def plot_rates(study: Study) -> "Figure":
    """The learning-rate sweep of a full study, first seed."""
    figure, panels = make_figure("Learning rates", len(study.ends))
    for panel, batch in zip(panels, study.ends, strict=True):
        for row, (norm, by_batch) in enumerate(rates_of(study).items()):
            points = sorted((float(rate), loss) for rate, loss in by_batch[str(batch)].items())
            kept = [point for point in points if point[1] is not None]
            panel.plot(
                [rate for rate, _ in kept],
                [loss for _, loss in kept],
                marker=".",
                color=colour(row),
                label=NORMS[norm].title,
            )
        panel.set_xscale("log")
        panel.set(title=f"batch {batch}", xlabel="learning rate", ylabel="nats a sample")
    draw_legend(figure, panels[0])
    return figure


PLOTS: dict[str, Callable[[Study], "Figure"]] = {
    "e1-leak": plot_leak,
    "e2-batches": plot_batches,
    "e3-streaming": plot_streaming,
    "e4-free-running": plot_free,
    "e5-shift": plot_shift,
    "e6-recurrent": plot_recurrent,
}


def encode_figure(figure: "Figure") -> bytes:
    """Return a PNG; without a date or versions, so that equal figures give equal files."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    return content.getvalue()


def draw_all(study: Study) -> dict[str, bytes]:
    """Return all plots of a study by name, as PNG."""
    plots = PLOTS | ({"rates": plot_rates} if study.settings.sweep else {})
    return {name: encode_figure(plot(study)) for name, plot in plots.items()}
