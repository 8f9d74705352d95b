"""Baseline: one sample as an ONNX graph, run by ONNX Runtime.

The graph draws the class, too, so that a sample is one call. The rings stay outside in NumPy: a
graph would copy all of them to change one row each. Inputs and outputs are bound to fixed memory
once (`io_binding`), and the older taps of all layers are one batched product.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from wavewn.bench.baselines import Baseline, Floats, Ints, stacked
from wavewn.engine.weights import WaveNetWeights

OPSET = 17


class OnnxStep(Baseline):
    """The graph of `make_graph` in an ONNX Runtime session of one thread."""

    name = "onnxruntime"

    def __init__(self, weights: WaveNetWeights) -> None:
        super().__init__(weights)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        model = make_graph(weights, self.table)
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, frames: Floats, noise: Floats) -> Ints:
        """See `Baseline.run`."""
        layers, R = len(self.dilations), self.table.shape[1]
        old = np.zeros((layers, 1, R), np.float32)
        gates = np.zeros((layers, 2 * R), np.float32)
        uniform = np.zeros(1, np.float32)
        last = np.full(1, len(self.table) - 1, np.int64)
        x = np.zeros((layers, R), np.float32)
        binding = self.session.io_binding()
        for name, array in (("old", old), ("gates", gates), ("noise", uniform), ("last", last)):
            place = (array.dtype, array.shape, array.ctypes.data)
            binding.bind_input(name, "cpu", 0, *place)
        for name, array in (("class", last), ("x", x)):
            place = (array.dtype, array.shape, array.ctypes.data)
            binding.bind_output(name, "cpu", 0, *place)

        rings = np.zeros((int(self.dilations.sum()), R), np.float32)
        hop = len(self.ramp)
        result = np.empty(len(noise), np.int64)
        for t in range(len(noise)):
            frame, i = divmod(t, hop)
            if i == 0:
                change = frames[frame + 1] - frames[frame]
            rows = self.offsets + t % self.dilations
            old[:, 0] = rings[rows]
            np.multiply(change, self.ramp[i], out=gates)
            np.add(gates, frames[frame], out=gates)
            uniform[0] = noise[t]
            self.session.run_with_iobinding(binding)
            rings[rows] = x
            result[t] = last[0]
        return result


def make_graph(weights: WaveNetWeights, table: Floats) -> onnx.ModelProto:
    """Write one sample as a graph.

        last [1], old [L, 1, R], gates [L, 2R], noise [1] -> class [1], x [L, R]

    `last` is the class before, or the number of classes for silence; `x` are the layers' inputs.
    """
    parts = stacked(weights)
    layers, R, wide = parts["out"].shape
    constants: dict[str, npt.NDArray[np.generic]] = {
        "table": table,
        "old_taps": parts["old"],
        "flat": np.array([layers, 2 * R]),
        "each": np.ones(layers, np.int64),
        "halves": np.array([R, R]),
        "ways": np.array([R, wide - R]),
        "last_axis": np.array(1),
        "row": np.array([1]),
        "end": np.array([-1]),
        "no_skip": np.zeros((1, wide - R), np.float32),
        "first": np.array(0),
        "highest": np.array(len(table) - 2),
        "hidden": weights.hidden.matrix.numpy(),
        "hidden_bias": weights.hidden.bias.numpy(),
        "output": weights.output.matrix.numpy(),
        "output_bias": weights.output.bias.numpy(),
    }
    node = helper.make_node
    sums = [f"sum.{i}" for i in range(layers)]
    nodes = [
        node("Gather", ["table", "last"], ["x.0"]),
        node("MatMul", ["old", "old_taps"], ["earlier"]),
        node("Reshape", ["earlier", "flat"], ["earlier_flat"]),
        node("Add", ["earlier_flat", "gates"], ["known"]),
        node("Split", ["known", "each"], sums, axis=0),
    ]
    for i in range(layers):
        for name in ("now", "out", "bias"):
            constants[f"{name}.{i}"] = parts[name][i]
        skip = f"skip.{i}" if i else "no_skip"
        nodes += [
            node("Gemm", [f"x.{i}", f"now.{i}", sums[i]], [f"a.{i}"]),
            node("Split", [f"a.{i}", "halves"], [f"f.{i}", f"g.{i}"], axis=1),
            node("Tanh", [f"f.{i}"], [f"tanh.{i}"]),
            node("Sigmoid", [f"g.{i}"], [f"open.{i}"]),
            node("Mul", [f"tanh.{i}", f"open.{i}"], [f"z.{i}"]),
            node("Gemm", [f"z.{i}", f"out.{i}", f"bias.{i}"], [f"y.{i}"]),
            node("Split", [f"y.{i}", "ways"], [f"rest.{i}", f"add.{i}"], axis=1),
            node("Add", [skip, f"add.{i}"], [f"skip.{i + 1}"]),
            node("Add", [f"x.{i}", f"rest.{i}"], [f"x.{i + 1}"]),
        ]
    nodes += [
        node("Concat", [f"x.{i}" for i in range(layers)], ["x"], axis=0),
        node("Relu", [f"skip.{layers}"], ["skips"]),
        node("Gemm", ["skips", "hidden", "hidden_bias"], ["h"]),
        node("Relu", ["h"], ["h_positive"]),
        node("Gemm", ["h_positive", "output", "output_bias"], ["logits"]),
        node("Softmax", ["logits"], ["p"], axis=1),
        node("CumSum", ["p", "last_axis"], ["cumulative"]),
        node("Gather", ["cumulative", "end"], ["total"], axis=1),
        node("Mul", ["noise", "total"], ["threshold"]),
        node("LessOrEqual", ["cumulative", "threshold"], ["below"]),
        node("Cast", ["below"], ["ones"], to=TensorProto.INT64),
        node("ReduceSum", ["ones", "row"], ["count"], keepdims=0),
        node("Clip", ["count", "first", "highest"], ["class"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "sample",
        [
            value("last", TensorProto.INT64, [1]),
            value("old", TensorProto.FLOAT, [layers, 1, R]),
            value("gates", TensorProto.FLOAT, [layers, 2 * R]),
            value("noise", TensorProto.FLOAT, [1]),
        ],
        [value("class", TensorProto.INT64, [1]), value("x", TensorProto.FLOAT, [layers, R])],
        [
            numpy_helper.from_array(np.ascontiguousarray(array), name)
            for name, array in constants.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
