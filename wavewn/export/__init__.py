"""One-pass models as graphs for others to run: ONNX files, and `torch.export` programs (.pt2)."""

from wavewn.export.files import SUFFIX, Format, export_stream, export_whole
from wavewn.export.graphs import Steady, find_steady, shortest

__all__ = [
    "SUFFIX",
    "Format",
    "Steady",
    "export_stream",
    "export_whole",
    "find_steady",
    "shortest",
]
