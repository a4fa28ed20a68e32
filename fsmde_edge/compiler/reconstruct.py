"""Learnt rounding and bias correction: what an INT8 layer makes, kept near what its real weights would make.

Layer by layer from the input, with all before it quantised already, on a few calibration views. Let X be what
the layer reads in the INT8 network (a column a position), W its real weights, Q its integers times their
scales, and Y what it makes in the FP32 network:

- *learnt rounding* looks for Q on the grid of the plan's scales with the least |Q X − W X|²: weights are
  rounded input by input, and each input's error is spread over those not rounded yet. This is GPTQ (Frantar
  et al., ICLR 2023, Algorithm 1), for the question that AdaRound asks (Nagel et al., ICML 2020, eq. 21).
  W X and not Y is the aim on purpose: fitting Y makes weights undo the noise of a few views.
- *bias correction* adds the mean of Y − Q X to the bias (Nagel et al., ICCV 2019, section 4.2, measured on
  data instead of derived).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.compiler.plan import Plan, Weight
from fsmde_edge.compiler.prefix import Tensors, Walk, one_view
from fsmde_edge.compiler.quantiser import LEVELS, dequantise
from fsmde_edge.graph.model import add_constant, attribute, copy_model, set_constant, tidy, value_of

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

Matrix = NDArray[np.float32]

POSITIONS = 24_576
"""Output positions of a layer that learnt rounding looks at, over all views."""

DAMPING = 0.1
"""What is added to the diagonal of X Xᵀ, over the diagonal's mean: directions that few views show keep their
plain rounding."""

_BLOCK = 128  # inputs rounded before the rest is updated; changes nothing but speed


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """What to do to each layer.

    Attributes:
        rounding: learn how weights are rounded.
        bias: correct biases.
    """

    rounding: bool = False
    bias: bool = True


def reconstruct(
    model: ModelProto,
    lowered: ModelProto,
    plan: Plan,
    feeds: Sequence[Tensors],
    what: Reconstruction,
    *,
    threads: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> ModelProto:
    """Round and correct the INT8 layers of a lowered network.

    Args:
        model: the FP32 network that the plan was made for.
        lowered: what `lowering.tensorrt.lower` made of it.
        plan: its plan.
        feeds: network inputs, one view each if `prefix.one_view` takes the network apart.
        what: to do.
        threads: ONNX Runtime's; 0 leaves the choice to it.
        progress: called with the number of layers done.

    Returns:
        A new lowered model: the same scales, other integers and biases.
    """
    result = copy_model(lowered)
    quantised = Walk(one_view(result) or result, feeds, threads=threads)
    reference = Walk(one_view(model) or model, feeds, threads=threads)
    # The walked graph may be a copy, cut to one view and depth: layers that lead elsewhere stay as they are.
    graphs = [result.graph] if quantised.model is result else [result.graph, quantised.model.graph]
    weights = {weight.node: weight for weight in plan.weights if weight.int8}
    layers = [node.name for node in quantised.model.graph.node if node.name in weights]
    for number, name in enumerate(layers):
        node = quantised.advance_to(name)
        real = value_of(model.graph, weights[name].tensor)
        is_map = node.op_type == "Conv" and real.ndim == 4
        if what.rounding and is_map and _is_dense(node):
            columns = _patches(node, real.shape, [live[node.input[0]] for live in quantised.live])
            integers = _learn(real.astype(np.float32), weights[name], columns)
            for graph in graphs:
                set_constant(graph, f"{weights[name].tensor}_quantized", integers)
            for live in quantised.live:  # their Dequantize has run already
                live[node.input[1]] = dequantise(integers, weights[name].scales)
        if what.bias and is_map:
            wanted = reference.output_of(name)
            error = _mean_error(quantised.output_of(name), wanted)
            for graph in graphs:
                _add_to_bias(graph, name, error)
            for live in quantised.live:
                live[node.output[0]] = live[node.output[0]] + error.reshape(1, -1, 1, 1)
        progress(number + 1)
    return tidy(result)


def round_columns(weights: Matrix, scales: Matrix, hessian: NDArray[np.float64]) -> NDArray[np.int8]:
    """Round a matrix to a grid so that its products change least (GPTQ, Algorithm 1).

    A row for which plain rounding is better, by wᵀ H w of its errors w, keeps that.

    Args:
        weights: float32 [outputs, inputs].
        scales: float32 [outputs], the step of each row's grid.
        hessian: float64 [inputs, inputs], X Xᵀ, positive definite.

    Returns:
        Integers, int8 [outputs, inputs] in −127..127.
    """
    order = np.argsort(-np.diag(hessian), kind="stable")  # the inputs that matter most first
    rest = weights[:, order].astype(np.float64)
    inverse = np.linalg.cholesky(np.linalg.inv(hessian[np.ix_(order, order)])).T  # upper triangular
    steps = scales.astype(np.float64)
    integers = np.empty(rest.shape, dtype=np.int8)
    for start in range(0, rest.shape[1], _BLOCK):
        stop = min(start + _BLOCK, rest.shape[1])
        errors = np.empty((rest.shape[0], stop - start))
        for i in range(start, stop):
            rounded = np.clip(np.rint(rest[:, i] / steps), -LEVELS, LEVELS)
            integers[:, order[i]] = rounded
            errors[:, i - start] = (rest[:, i] - rounded * steps) / inverse[i, i]
            rest[:, i:stop] -= np.outer(errors[:, i - start], inverse[i, i:stop])
        rest[:, stop:] -= errors @ inverse[start:stop, stop:]
    nearest = np.clip(np.rint(weights / steps[:, None]), -LEVELS, LEVELS).astype(np.int8)
    costs = [_costs(found * steps[:, None] - weights, hessian) for found in (integers, nearest)]
    return np.where((costs[0] < costs[1])[:, None], integers, nearest)


def _costs(errors: NDArray[np.float64], hessian: NDArray[np.float64]) -> NDArray[np.float64]:
    """wᵀ H w of each row."""
    return np.asarray(np.einsum("ij,ij->i", errors @ hessian, errors))


def _learn(weights: Matrix, weight: Weight, columns: Matrix) -> NDArray[np.int8]:
    """Integers of the weights' shape for what the layer reads, float32 [C·kh·kw, N] (overwritten)."""
    # The mean is the bias's to correct: what varies is the weights'.
    columns -= columns.mean(axis=1, keepdims=True)  # in place: the matrix is the largest thing around
    hessian = (columns @ columns.T).astype(np.float64)
    hessian[np.diag_indices_from(hessian)] += DAMPING * max(float(np.diag(hessian).mean()), 1e-12)
    scales = np.array(weight.scales, dtype=np.float32)
    return round_columns(weights.reshape(len(weights), -1), scales, hessian).reshape(weights.shape)


def _patches(node: NodeProto, shape: tuple[int, ...], inputs: list[Matrix]) -> Matrix:
    """What a convolution reads at randomly chosen positions of its output: float32 [C·kh·kw, N]."""
    random = np.random.default_rng(0)
    stride, dilation, pads = _geometry(node)
    each = max(1, POSITIONS // sum(len(batch) for batch in inputs))
    found = []
    for batch in inputs:
        padded = np.pad(batch, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
        span = [(k - 1) * d for k, d in zip(shape[2:], dilation, strict=True)]
        height, width = ((size - s) for size, s in zip(padded.shape[2:], span, strict=True))
        rows, columns = -(-height // stride[0]), -(-width // stride[1])
        for image in padded:
            chosen = random.permutation(rows * columns)[:each]
            y, x = np.divmod(chosen, columns)
            at_y = y * stride[0] + np.arange(shape[2])[:, None] * dilation[0]
            at_x = x * stride[1] + np.arange(shape[3])[:, None] * dilation[1]
            found.append(image[:, at_y[:, None, :], at_x[None, :, :]].reshape(-1, len(chosen)))
    return np.concatenate(found, axis=1)


def _geometry(node: NodeProto) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]:
    """Strides, dilations, and padding (top, left, bottom, right) of a convolution."""

    def numbers(name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        found = attribute(node, name)
        return default if found is None else tuple(found.ints)

    strides, dilations = numbers("strides", (1, 1)), numbers("dilations", (1, 1))
    pads = numbers("pads", (0, 0, 0, 0))
    return (strides[0], strides[1]), (dilations[0], dilations[1]), (pads[0], pads[1], pads[2], pads[3])


def _is_dense(node: NodeProto) -> bool:
    """Whether a convolution is one over all its input channels, padded by explicit numbers."""
    group, padding = attribute(node, "group"), attribute(node, "auto_pad")
    explicit = padding is None or padding.s in {b"NOTSET", b""}
    return (group is None or group.i == 1) and explicit


def _mean_error(made: list[Matrix], wanted: list[Matrix]) -> Matrix:
    errors = [(right - left).mean(axis=(0, 2, 3)) for left, right in zip(made, wanted, strict=True)]
    return np.asarray(np.mean(errors, axis=0), dtype=np.float32)


def _add_to_bias(graph: GraphProto, name: str, error: Matrix) -> None:
    node = next(node for node in graph.node if node.name == name)
    if len(node.input) < 3:
        node.input.append(add_constant(graph, f"{name}_bias", error))
        return
    own = f"{name}_bias_corrected"  # a bias may be another layer's as well
    node.input[2] = add_constant(graph, own, value_of(graph, node.input[2]).astype(np.float32) + error)
