"""Gains and biases from one batch of real data, so that every layer starts with tame outputs.

The package tells the whole story; import from `wavewn.nn.weight_norm`.

Source: Salimans & Kingma 2016, arXiv:1602.07868, section 3, equation 5.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wavewn.errors import ConfigError
from wavewn.nn.conv import CausalConv1d
from wavewn.nn.weight_norm.parametrization import gain_and_direction, normed_modules


@dataclass
class InitReport:
    """What `data_dependent_init` did.

    Attributes:
        layers: Names of the layers that were set, in the order of use.
        dead: Channels of a layer that were constant; they keep their gain.
        capped: Channels of a layer whose gain hit the bound, so that they stay quieter.
    """

    layers: list[str] = field(default_factory=list)
    dead: dict[str, list[int]] = field(default_factory=dict)
    capped: dict[str, list[int]] = field(default_factory=dict)


def channels_last(module: nn.Module) -> bool:
    """Whether `module` puts out [batch, time, channels], not torch's [batch, channels, ...]."""
    convolution = isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d)
    return isinstance(module, CausalConv1d) or not convolution


def _rows(module: nn.Module, output: Tensor, skip_left: float) -> Tensor:
    """Return the counted rows of an output, [rows, channels] in float32."""
    x = output if channels_last(module) else output.movedim(1, -1)
    return x[:, int(skip_left * x.shape[1]) :].flatten(0, -2).float()


@torch.no_grad()
def data_dependent_init(
    model: nn.Module,
    run: Callable[[], object],
    *,
    scale: Callable[[str, int], Tensor | float] = lambda name, channels: 1.0,
    skip_left: float = 0.0,
    minimum: float = 1e-6,
    max_gain: float = 10.0,
) -> InitReport:
    """Set gains and biases so that every layer's output has mean 0 and a chosen deviation.

    One forward pass; each layer sees the outputs of the layers already set, and a layer that is
    used more than once is set at its first use. A layer that puts out one row an utterance (a
    speaker's projection) is left alone: a batch holds too few rows to tell a deviation. The
    paper divides by the deviation; `scale` lets residual branches and logits start small.

    Args:
        model: Its weight-normed layers are set; one without a bias is scaled but not centred.
        run: Calls the model on one batch of real data.
        scale: Wanted standard deviation of a layer's output, one number or one per channel.
        skip_left: Share of each signal, from its beginning, that is not counted, because it
            sees the zeros before the crop.
        minimum: Deviation below which a channel counts as dead and keeps its gain.
        max_gain: Bound of the factor on a gain.

    Returns:
        What was set.

    Raises:
        ConfigError: A layer has no live channel (the batch is silent), or `run` reached no layer.
    """
    report = InitReport()
    normed = normed_modules(model)
    names = {id(m): name for name, m in normed.items()}

    def hook(module: nn.Module, args: object, output: Tensor) -> Tensor | None:
        name = names[id(module)]
        if name in report.layers or output.dim() < 3:
            return None
        report.layers.append(name)
        rows = _rows(module, output, skip_left)
        mean, deviation = rows.mean(0), rows.std(0, correction=0)
        live = deviation > minimum
        if not bool(live.any()):
            raise ConfigError(
                f"data-dependent initialisation saw no signal at '{name}': expected a batch of "
                f"audible audio, got silence; check the corpus or the crop length"
            )
        if not bool(live.all()):
            report.dead[name] = (~live).nonzero().flatten().tolist()
        wanted = torch.as_tensor(scale(name, len(mean)), device=mean.device)
        factor = torch.where(live, wanted / deviation.clamp_min(minimum), 1.0)
        if bool((factor > max_gain).any()):
            report.capped[name] = (factor > max_gain).nonzero().flatten().tolist()
        factor = factor.clamp(max=max_gain)
        g = gain_and_direction(module)[0]
        g.mul_(factor.reshape(g.shape))
        shift = torch.zeros_like(mean)
        if module.bias is not None:
            shift = mean * factor
            module.bias.mul_(factor).sub_(shift)  # type: ignore[operator, union-attr]
        if not channels_last(module):
            column = (-1, *(1 for _ in output.shape[2:]))
            factor, shift = factor.reshape(column), shift.reshape(column)
        return (output * factor - shift).to(output.dtype)

    with ExitStack() as stack:
        for module in normed.values():
            stack.callback(module.register_forward_hook(hook).remove)
        run()
    if not report.layers:
        raise ConfigError(
            "data-dependent initialisation reached no layer: `run` must call the model, and the "
            "model must have weight norm"
        )
    return report
