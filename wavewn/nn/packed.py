"""Convolutions for a CPU, with weights laid out once as its multipliers read them.

torch lays a weight out anew in each call, which for a chunk of a few frames takes as long as the
convolution itself; and it sends small inputs round oneDNN altogether. These layers give what the
plain ones give but for the order of sums. They want channels innermost (nn/layout.py), and are for
inference only: their weights are copies and no gradient reaches them.

Where there is little to compute even the call into oneDNN takes longer than that; one product of
matrices for each tap is quicker then.

A transposed convolution of a few rows is one product of matrices: the inputs times all taps, each
stretch of `rate` taps then added where it belongs. For many rows the plain layer is quicker.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavewn.nn.layout import innermost
from wavewn.nn.padded import PaddedConv1d, UpsamplingConv1d

TYPICAL_ROWS = 512  # oneDNN chooses the layout of a weight by the size of an input
FEW_PRODUCTS = 8_000_000  # multiplications up to which a product for each tap is quicker
FEW_CHANNELS = 16  # below which it never is
MANY_ROWS = 256  # from which a transposed convolution is no longer made of products


class PackedConv1d(PaddedConv1d):
    """A copy of a plain layer; see the module."""

    def __init__(self, layer: PaddedConv1d) -> None:
        (taps,), (dilation,) = layer.kernel_size, layer.dilation
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            taps,
            dilation,
            right=layer.right,
            padding=layer.padding_mode_name,
            bias=layer.bias is not None,
        )
        self.weight, self.bias = layer.weight, layer.bias
        self._dilation = [1, dilation]
        rows = TYPICAL_ROWS + self.left + self.right
        with torch.no_grad():
            weight = self.weight.unsqueeze(2).contiguous().to_mkldnn()
            self._packed = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]
                weight, [0, 0], [1, 1], self._dilation, 1, [1, self.in_channels, 1, rows]
            )
            self._taps = [tap.t().contiguous() for tap in self.weight.unbind(2)]
        precise = self.weight.dtype == torch.float32  # in bfloat16 each tap would be rounded
        worth = precise and self.in_channels >= FEW_CHANNELS
        self._few_rows = FEW_PRODUCTS // self.weight.numel() if worth else 0

    def filter(self, x: Tensor) -> Tensor:
        """See `PaddedConv1d.filter`."""
        rows = x.shape[2] - self.left - self.right
        if x.shape[0] == 1 and rows <= self._few_rows:
            return self._tap_by_tap(x[0].t(), rows).t()[None]
        plane = innermost(x.to(self.weight.dtype)).unsqueeze(2)
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            plane, self._packed, self.bias, [0, 0], [1, 1], self._dilation, 1, "none", [], ""
        )
        return y.squeeze(2)

    def _tap_by_tap(self, x: Tensor, rows: int) -> Tensor:
        """Turn [left + rows + right, channels] into [rows, channels]."""
        x = x.to(self.weight.dtype)
        y = F.linear(x[:rows], self._taps[0].t(), self.bias)
        for i, tap in enumerate(self._taps[1:], start=1):
            place = i * self._dilation[1]
            y.addmm_(x[place : place + rows], tap)
        return y


class PackedUpsamplingConv1d(UpsamplingConv1d):
    """A copy of a plain layer; see the module."""

    def __init__(self, layer: UpsamplingConv1d) -> None:
        sizes = (layer.in_channels, layer.out_channels, layer.taps, layer.rate)
        super().__init__(*sizes, crop=layer.crop)
        self.weight, self.bias = layer.weight, layer.bias
        self._stretches = -(-self.taps // self.rate)
        missing = self._stretches * self.rate - self.taps
        with torch.no_grad():
            weight = F.pad(self.weight, (0, missing)).transpose(1, 2)
            self._packed = weight.reshape(self.in_channels, -1).contiguous()
            bias = self.weight.new_zeros(self.out_channels) if layer.bias is None else layer.bias
            self._bias = bias.repeat(self.rate)

    def forward(self, x: Tensor, begin: int | None = None, rows: int | None = None) -> Tensor:  # type: ignore[override]
        """See `UpsamplingConv1d.forward`."""
        if x.shape[2] >= MANY_ROWS:
            return super().forward(innermost(x), begin, rows)
        begin = self.crop if begin is None else begin
        rows = x.shape[2] * self.rate if rows is None else rows
        x = x.to(self.weight.dtype).transpose(1, 2)
        batch, inputs, _ = x.shape
        products = (x @ self._packed).view(batch, inputs, self._stretches, -1)
        y = self._bias.repeat(batch, inputs + self._stretches - 1, 1)
        for stretch in range(self._stretches):
            y[:, stretch : stretch + inputs] += products[:, :, stretch]
        return y.view(batch, -1, self.out_channels)[:, begin : begin + rows].transpose(1, 2)


def pack_layers(model: nn.Module) -> None:
    """Replace a model's plain convolutions by packed ones, in place.

    Kinds of their own (`PreciseConv1d` and others that filter in another way) stay as they are, and
    so does all on other devices, where torch has no oneDNN, or the processor lacks what it needs
    for bfloat16.
    """
    kinds = {(parameter.device.type, parameter.dtype) for parameter in model.parameters()}
    if not torch.backends.mkldnn.is_available() or {device for device, _ in kinds} != {"cpu"}:
        return
    if ("cpu", torch.bfloat16) in kinds and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is PaddedConv1d and layer.kernel_size[0] > 1:
                setattr(parent, name, PackedConv1d(layer))
            elif type(layer) is UpsamplingConv1d:
                setattr(parent, name, PackedUpsamplingConv1d(layer))
