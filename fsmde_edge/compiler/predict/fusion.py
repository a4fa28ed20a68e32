"""Which kernels full TensorRT makes of a network: a model of its fusion, on a lowered graph.

It reads a Q/DQ model (float32 or float16 rest) or a plain float one and says which nodes become one kernel,
in which precision, and how many bytes each moves. No GPU, no TensorRT; the rules are those that NVIDIA
documents (the section is named in brackets):

 F1. Convolution + bias + scale, then one element-wise sum of equal shapes, then ReLU or Clip are one kernel
     (Types of Fusions: convolution and ReLU, clip, scale, element-wise operation).
 F2. A convolution computes in INT8 where both operands come from Dequantize; with one alone it stays float
     (Q/DQ Layer-Placement Recommendations: quantize all inputs of weighted operations).
 F3. The Quantize behind an INT8 convolution belongs to its kernel, unless the sum in between has an operand
     in float: then the kernel writes float and Quantize stands alone
     (same section: quantize the residual input in skip connections).
 F4. A Q/DQ pair between a convolution and its sum keeps them apart: the sum is a kernel of its own
     (same section: by default, don't quantize the outputs of weighted operations; a suboptimal fusion).
 F5. Element-wise layers in a row, Quantize, Dequantize and Cast among them, are one kernel
     (Types of Fusions: point-wise fusion). Activations that F1 does not name (SiLU and such) are of these.
 F6. Dequantize moves forward and Quantize backward through layers that only move values, which then run in
     INT8; a Quantize of the same scale behind them costs nothing (Processing of Q/DQ Networks).
 F7. Any other layer computes in float: what it reads is dequantized by a kernel of its own (bilinear Resize,
     float convolutions), once a tensor.
 F8. INT8 maps are stored in channels of 32 (of 4 up to four channels), FP16 ones of 8 (Data Format
     Descriptions). Arithmetic runs over the padded channels, a group's too: an INT8 depthwise convolution
     does 32 times its work. One in float runs on CUDA cores, unpadded.
 F9. Where a kernel of plain rows reads what one of packed channels wrote, or the other way round, a reformat
     stands between (I/O Formats).
F10. A Concat of maps whose channels fill their packs is nothing: its inputs are written in place (Types of
     Fusions: concatenation elimination). Reshapes are nothing.

Pages of docs.nvidia.com/deeplearning/tensorrt: "Layer Fusion Catalog" (10.x: "Types of Fusions"),
"Explicit Quantization" of "Working with Quantized Types", "Data Format Descriptions". What NVIDIA does not
document (which tactic wins, what its Myelin compiler merges) is not here: the device's own inspector has the
last word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Literal, NamedTuple

from fsmde_edge.graph.model import FLOAT16, INT8, UINT8, TensorType, initializers, tensor_types
from fsmde_edge.graph.structure import ACTIVATIONS, commutes, is_depthwise, macs, moved_inputs

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

Precision = Literal["int8", "fp16", "fp32"]

COMPUTING = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])
FREE = frozenset(["Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"])
LAST = frozenset(["Relu", "Clip"])
"""Activations that end a convolution's kernel; only Quantize may follow."""

POINTWISE = ACTIVATIONS | frozenset(
    [
        "Abs", "Add", "BatchNormalization", "Cast", "Ceil", "Div", "Equal", "Erf", "Exp", "Floor",
        "Gelu", "Greater", "Less", "Log", "Max", "Min", "Mul", "Neg", "Not", "Pow", "QuantizeLinear",
        "Reciprocal", "Round", "Selu", "Sign", "Softplus", "Softsign", "Sqrt", "Sub", "Where",
    ]
)  # fmt: skip
KINDS = {
    "Concat": "copy",
    "Slice": "copy",
    "Split": "copy",
    "Pad": "copy",
    "Transpose": "shuffle",
    "DepthToSpace": "shuffle",
    "SpaceToDepth": "shuffle",
    "Resize": "resize",
    "MaxPool": "pool",
    "AveragePool": "pool",
    "GlobalAveragePool": "pool",
    "GlobalMaxPool": "pool",
    "Softmax": "softmax",
    "LogSoftmax": "softmax",
}
"""Kinds of kernels that are not computing and not element-wise; Reduce… is `reduce`, all else `other`."""

ROWS = frozenset(["shuffle", "softmax", "reduce", "other"])
"""Kinds that read and write plain rows."""

PACKED = frozenset(["conv", "deconv", "depthwise", "pool", "resize", "copy"])
"""Kinds that read and write packed channels."""

_BYTES = {FLOAT16: 2, INT8: 1, UINT8: 1, 7: 8, 9: 1, 11: 8}
"""Element type to size; all else (float32, int32) has four."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One launch on the GPU.

    Attributes:
        name: of its main node.
        nodes: names of the ONNX nodes in it, in order; empty for a reformat.
        kind: conv, deconv, depthwise, matmul, elementwise, quantize, dequantize, requantize, reformat, or one
            of `KINDS`.
        precision: what it computes in.
        macs: multiply-accumulates of the network in it.
        padded_macs: what the hardware does for them (F8).
        read_bytes, write_bytes: activations, as stored.
        weight_bytes: weights and biases, as stored.
        note: what is remarkable; empty where nothing is.
    """

    name: str
    nodes: tuple[str, ...]
    kind: str
    precision: Precision
    macs: int = 0
    padded_macs: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    weight_bytes: int = 0
    note: str = ""


def fuse(model: ModelProto) -> tuple[Kernel, ...]:
    """The kernels of a model, in the order in which they can run.

    Args:
        model: tidy, of static shapes: what `lowering.tensorrt.lower` or `half.to_half` returns, or float.
    """
    return _Fuser(model).run()


class _Integers(NamedTuple):
    """A tensor that is float in the graph and stored as integers."""

    tensor: str
    scale: object


@dataclass(slots=True)
class _Group:
    """Nodes that become one kernel, while it grows."""

    kind: str
    nodes: list[int]
    int8: bool = False
    reads_integers: bool = False
    note: str = ""
    float_sum: bool = False


@dataclass(slots=True)
class _Fuser:
    """One walk over one graph; nodes go by their position."""

    model: ModelProto
    nodes: list[NodeProto] = field(init=False)
    ops: list[str] = field(init=False)
    inputs: list[tuple[str, ...]] = field(init=False)
    outputs: list[tuple[str, ...]] = field(init=False)
    types: dict[str, TensorType] = field(init=False)
    constants: dict[str, TensorProto] = field(init=False)
    results: set[str] = field(init=False)
    readers: dict[str, list[int]] = field(init=False, default_factory=dict)
    integers: dict[str, _Integers] = field(init=False, default_factory=dict)
    weights: dict[str, str] = field(init=False, default_factory=dict)
    alias: dict[str, str] = field(init=False, default_factory=dict)
    taken: set[int] = field(init=False, default_factory=set)
    moving: set[int] = field(init=False, default_factory=set)
    groups: list[_Group] = field(init=False, default_factory=list)
    written_by: dict[str, str] = field(init=False, default_factory=dict)
    as_integers: set[str] = field(init=False, default_factory=set)
    packed: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.nodes = list(graph.node)
        self.ops = [node.op_type for node in self.nodes]
        self.inputs = [tuple(name for name in node.input if name) for node in self.nodes]
        self.outputs = [tuple(node.output) for node in self.nodes]
        self.types = tensor_types(self.model)
        self.constants = initializers(graph)
        self.results = {info.name for info in graph.output}
        for index, names in enumerate(self.inputs):
            for name in dict.fromkeys(names):
                self.readers.setdefault(name, []).append(index)

    def run(self) -> tuple[Kernel, ...]:
        for index in range(len(self.nodes)):
            self._follow_integers(index)
        for index, op in enumerate(self.ops):  # first, so that sums go to convolutions (F1)
            if op in COMPUTING and index not in self.taken:
                self._take_computing(index)
        for index in range(len(self.nodes)):
            if index not in self.taken:
                self._take_other(index)
        self.groups.sort(key=lambda group: max(group.nodes))
        for group in self.groups:
            self._lay_out(group)
        return tuple(self._kernels())

    # -- which tensors are integers (F6) ---------------------------------------------------------------

    def _follow_integers(self, index: int) -> None:
        op, names, outs = self.ops[index], self.inputs[index], self.outputs[index]
        if op == "DequantizeLinear":
            self.taken.add(index)
            if names[0] in self.constants:
                self.weights[outs[0]] = names[0]
            else:
                self.integers[outs[0]] = _Integers(self._stored(names[0]), self._scale(names[1]))
        elif op == "QuantizeLinear":
            held = self.integers.get(names[0])
            if held is not None and held.scale == self._scale(names[1]):
                self.taken.add(index)
                self.alias[outs[0]] = held.tensor
        elif op in FREE or commutes(self.nodes[index]):
            self._follow_moved(index)

    def _follow_moved(self, index: int) -> None:
        held = [self.integers.get(name) for name in moved_inputs(self.nodes[index])]
        scales = {item.scale for item in held if item is not None}
        whole = None not in held and len(scales) == 1
        for name in self.outputs[index]:
            if self.ops[index] in FREE:
                self.taken.add(index)
                self.alias[name] = self._stored(self.inputs[index][0])
                if whole and held[0] is not None:
                    self.integers[name] = held[0]
            elif whole:
                self.moving.add(index)
                self.as_integers.add(name)  # float by its type, integers in memory
                self.integers[name] = _Integers(name, *scales)

    def _stored(self, name: str) -> str:
        while name in self.alias:
            name = self.alias[name]
        return name

    def _scale(self, name: str) -> object:
        """What two equal scales have in common: their value, or for scales per channel their name."""
        from onnx import numpy_helper

        item = self.constants.get(name)
        if item is None or prod(item.dims) != 1:
            return name
        return float(numpy_helper.to_array(item).reshape(-1)[0])

    # -- which nodes go together -----------------------------------------------------------------------

    def _take_computing(self, index: int) -> None:
        op, names = self.ops[index], self.inputs[index]
        halves = [name in self.integers or name in self.weights for name in names[:2]]
        group = _Group(kind="matmul", nodes=[index], int8=all(halves))
        if op == "ConvTranspose":
            group.kind = "deconv"
        elif op == "Conv":
            deep = not is_depthwise(self.nodes[index], self.types) if names[1] in self.types else True
            group.kind = "conv" if deep else "depthwise"
        if halves[1] and not halves[0] and names[1] in self.weights:
            group.note = "only its weights are quantised: computes in float"
        self._open(group)
        tensor: str | None = self.outputs[index][0]
        while tensor is not None:
            tensor = self._absorb_epilogue(group, tensor)

    def _absorb_epilogue(self, group: _Group, tensor: str) -> str | None:
        """Put what follows into a convolution's kernel (F1, F3); the tensor behind it, None at the end."""
        after = self._followers(tensor)
        if after and all(self.ops[i] == "QuantizeLinear" for i in after):
            if group.int8 and not group.float_sum and self._one_scale(after):
                self._absorb(group, after)
            return None
        if len(after) != 1:
            if group.int8 and any(self.ops[i] == "QuantizeLinear" for i in after):
                group.note = "read in float as well: writes float, quantised behind"
            return None
        if any(self.ops[i] in LAST for i in group.nodes):
            return None
        index = after[0]
        others = [name for name in self.inputs[index] if name != tensor and not self._is_constant(name)]
        op = self.ops[index]
        if op in LAST or op == "BatchNormalization" or (op in {"Add", "Mul", "Sub"} and not others):
            self._absorb(group, after)
        elif op == "Add" and self._is_sum(index) and not self._has_sum(group):
            self._absorb(group, after)
            if group.int8 and others[0] not in self.integers:
                group.float_sum, group.note = True, "adds a float tensor: writes float, quantised behind"
            group.reads_integers = group.int8
        else:
            return None
        return self.outputs[index][0]

    def _take_other(self, index: int) -> None:
        op = self.ops[index]
        if op in POINTWISE:
            group = _Group(kind="elementwise", nodes=[index], reads_integers=True)
            self._open(group)
            if op == "QuantizeLinear":
                again = self.inputs[index][0] in self.integers
                group.kind = "requantize" if again else "quantize"
                group.note = "to another scale" if again else ""
                return
            if op == "Add" and all(name in self.integers for name in self.inputs[index]):
                group.note = "a sum of its own: Q/DQ between it and its convolution (F4)"
            tensor: str | None = self.outputs[index][0]
            while tensor is not None:
                tensor = self._absorb_pointwise(group, tensor)
            return
        kind = "reduce" if op.startswith("Reduce") else KINDS.get(op, "other")
        group = _Group(kind=kind, nodes=[index], int8=index in self.moving)
        group.reads_integers = group.int8
        if op == "Concat" and self._fills_packs(index):
            self.taken.add(index)
            return
        self._open(group)
        if not group.int8 and op == "Resize" and self.inputs[index][0] in self.integers:
            group.note = "interpolates in float"

    def _absorb_pointwise(self, group: _Group, tensor: str) -> str | None:
        """Put what follows into an element-wise kernel (F5); the tensor behind it, None at the end."""
        after = self._followers(tensor)
        if after and all(self.ops[i] == "QuantizeLinear" for i in after):
            if self._one_scale(after):
                self._absorb(group, after)
            return None
        if self._is_gate(tensor, after):
            self._absorb(group, after)
            return self.outputs[after[1]][0]
        if len(after) != 1 or self.ops[after[0]] not in POINTWISE:
            return None
        self._absorb(group, after)
        return self.outputs[after[0]][0]

    def _is_gate(self, tensor: str, after: list[int]) -> bool:
        """Whether two nodes are x × f(x), as SiLU is exported: both read x, the second multiplies."""
        if len(after) != 2 or self.ops[after[0]] not in POINTWISE or self.ops[after[1]] != "Mul":
            return False
        inner = self.outputs[after[0]][0]
        return set(self.inputs[after[1]]) == {tensor, inner} and self.readers.get(inner) == after[1:]

    def _followers(self, tensor: str) -> list[int]:
        """The nodes that read a tensor, if all may still be taken and it is no result of the network."""
        after = self.readers.get(tensor, [])
        free = tensor not in self.results and not any(i in self.taken for i in after)
        return after if free else []

    def _open(self, group: _Group) -> None:
        self.groups.append(group)
        self.taken.update(group.nodes)

    def _absorb(self, group: _Group, indices: Iterable[int]) -> None:
        for index in indices:
            group.nodes.append(index)
            self.taken.add(index)
            if self.ops[index] == "QuantizeLinear" and self.ops[group.nodes[-2]] == "QuantizeLinear":
                first = next(i for i in group.nodes if self.ops[i] == "QuantizeLinear")
                self.alias[self.outputs[index][0]] = self.outputs[first][0]

    def _one_scale(self, indices: list[int]) -> bool:
        return len({self._scale(self.inputs[i][1]) for i in indices}) == 1

    def _is_constant(self, name: str) -> bool:
        return name in self.constants or name in self.weights

    def _is_sum(self, index: int) -> bool:
        left, right = (self.types.get(name) for name in self.inputs[index])
        return left is not None and right is not None and left.shape == right.shape

    def _has_sum(self, group: _Group) -> bool:
        return any(
            self.ops[i] == "Add" and not any(self._is_constant(name) for name in self.inputs[i])
            for i in group.nodes
        )

    def _fills_packs(self, index: int) -> bool:
        """Whether a Concat of maps is elided (F10)."""
        names = self.inputs[index]
        shapes = [self._shape(name) for name in names]
        axis = next((item.i for item in self.nodes[index].attribute if item.name == "axis"), 1)
        dtype = INT8 if index in self.moving else self._dtype(names[0])
        made = [name in self.integers or not self._is_constant(name) for name in names]
        return axis == 1 and all(made) and all(len(s) == 4 and s[1] % _pack(dtype, s[1]) == 0 for s in shapes)

    def _lay_out(self, group: _Group) -> None:
        """Say who writes a tensor, and whether its channels are packed (element-wise: as what it reads)."""
        packs = group.kind in PACKED or (
            group.kind not in ROWS and any(self._stored(name) in self.packed for name in self._read(group))
        )
        for name in self._written(group):
            self.written_by[name] = group.kind
            if packs:
                self.packed.add(name)

    # -- what each kernel costs ------------------------------------------------------------------------

    def _kernels(self) -> Iterator[Kernel]:
        ready: set[tuple[str, str]] = set()
        for group in self.groups:
            read = 0
            for name in self._read(group):
                held = self.integers.get(name)
                if held is not None and not self._takes_integers(group, name):
                    yield from self._once(ready, "dequantize", name, held.tensor)
                    read += self._size(name)
                else:
                    stored = self._stored(name) if held is None else held.tensor
                    if self._reformats(group, stored):
                        yield from self._once(ready, "reformat", stored, stored)
                    read += self._size(stored, INT8 if held is not None else None)
            yield self._kernel(group, read)

    def _kernel(self, group: _Group, read: int) -> Kernel:
        head = group.nodes[0]
        written = self._written(group)
        integer = group.int8 and group.kind not in {"conv", "deconv", "depthwise", "matmul"}
        count, padded, weights = self._work(head, group) if self.ops[head] in COMPUTING else (0, 0, 0)
        return Kernel(
            name=self.nodes[head].name,
            nodes=tuple(self.nodes[i].name for i in sorted(group.nodes)),
            kind=group.kind,
            precision=self._precision(group),
            macs=count,
            padded_macs=padded,
            read_bytes=read,
            write_bytes=sum(self._size(name, INT8 if integer else None) for name in written),
            weight_bytes=weights,
            note=group.note,
        )

    def _once(self, ready: set[tuple[str, str]], kind: str, name: str, source: str) -> Iterator[Kernel]:
        """A kernel that only rewrites a tensor (F7, F9), for all who need it."""
        if (kind, name) in ready:
            return
        ready.add((kind, name))
        int8 = kind == "dequantize" or name in self.as_integers or self._dtype(name) == INT8
        half = self._dtype(name) == FLOAT16
        yield Kernel(
            name=name,
            nodes=(),
            kind=kind,
            precision="int8" if int8 and kind == "reformat" else "fp16" if half else "fp32",
            read_bytes=self._size(source, INT8 if int8 else None),
            write_bytes=self._size(name, INT8 if int8 and kind == "reformat" else None),
        )

    def _read(self, group: _Group) -> list[str]:
        """What a kernel reads, constants and its own results aside, each once."""
        inside = {name for i in group.nodes for name in self.outputs[i]}
        names = dict.fromkeys(name for i in group.nodes for name in self._operands(i))
        return [name for name in names if name not in inside and not self._is_constant(name)]

    def _operands(self, index: int) -> tuple[str, ...]:
        return (
            self.inputs[index][:1] if self.ops[index] in {"Resize", "QuantizeLinear"} else self.inputs[index]
        )

    def _written(self, group: _Group) -> list[str]:
        """What a kernel leaves in memory: what is read outside of it; equal copies once."""
        inside = set(group.nodes)
        outs = [name for i in group.nodes for name in self.outputs[i] if name]
        needed = [
            name
            for name in outs
            if name in self.results or any(i not in inside for i in self.readers.get(name, ()))
        ]
        return list(dict.fromkeys(name for name in needed if self.alias.get(name) not in outs))

    def _takes_integers(self, group: _Group, name: str) -> bool:
        if group.reads_integers:
            return True
        return group.int8 and name in self.inputs[group.nodes[0]]

    def _reformats(self, group: _Group, stored: str) -> bool:
        maker = self.written_by.get(stored, "")
        packed = len(self._shape(stored)) == 4 and (
            self._dtype(stored) in {FLOAT16, INT8} or stored in self.as_integers
        )
        return packed and (
            (group.kind in ROWS and maker in PACKED) or (group.kind in PACKED and maker in ROWS)
        )

    def _precision(self, group: _Group) -> Precision:
        if group.int8:
            return "int8"
        outs = self._written(group) or list(self.outputs[group.nodes[-1]])
        floats = [*outs, *self.inputs[group.nodes[0]]]
        if group.kind in {"conv", "deconv", "depthwise", "matmul"}:
            floats = list(self.outputs[group.nodes[0]])
        ints = all(name in self.integers for name in self._read(group))
        if group.kind == "elementwise" and ints and all(self._dtype(name) == INT8 for name in outs):
            return "int8"
        return "fp16" if any(self._dtype(name) == FLOAT16 for name in floats) else "fp32"

    def _work(self, index: int, group: _Group) -> tuple[int, int, int]:
        """Multiply-accumulates, the same with padded channels, bytes of weights and bias (F8)."""
        data, weight = self.inputs[index][:2]
        shape = self._shape(weight)
        bias = sum(4 * prod(self._shape(name)) for name in self.inputs[index][2:])
        if not self._is_constant(weight):  # a product of two activations
            count = prod(self._shape(self.outputs[index][0])) * (self._shape(data) or (1,))[-1]
            return count, count, bias
        count = macs(self.nodes[index], self.types)
        dtype = INT8 if group.int8 else self._dtype(weight)
        size = _BYTES.get(dtype, 4)
        grouped = any(item.name == "group" and item.i > 1 for item in self.nodes[index].attribute)
        alone = group.kind == "depthwise" and not group.int8
        if group.kind == "matmul" or alone or (group.kind == "deconv" and grouped):
            return count, count, prod(shape) * size + bias
        out, inner = (shape[1], shape[0]) if group.kind == "deconv" else (shape[0], shape[1])
        pack = 32 if group.kind == "depthwise" else _pack(dtype, inner)
        grown = _round_up(out, _pack(dtype, 32)) * _round_up(inner, pack)
        return count, count * grown // (out * inner), prod(shape[2:]) * grown * size + bias

    def _shape(self, name: str) -> tuple[int, ...]:
        kind = self.types.get(name)
        return (kind.shape or ()) if kind is not None else ()

    def _dtype(self, name: str) -> int:
        kind = self.types.get(name)
        return 1 if kind is None else kind.dtype

    def _size(self, name: str, dtype: int | None = None) -> int:
        """Bytes of a tensor as stored: maps with padded channels (F8)."""
        shape = self._shape(name)
        dtype = self._dtype(name) if dtype is None else dtype
        if len(shape) == 4 and (dtype == INT8 or (dtype == FLOAT16 and name in self.packed)):
            shape = (shape[0], _round_up(shape[1], _pack(dtype, shape[1])), *shape[2:])
        return prod(shape) * _BYTES.get(dtype, 4)


def _pack(dtype: int, channels: int) -> int:
    """How many channels are stored together."""
    if dtype == INT8:
        return 4 if channels <= 4 else 32
    return 8 if dtype == FLOAT16 else 1


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
