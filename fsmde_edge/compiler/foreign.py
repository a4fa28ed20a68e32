"""Somebody else's depth network, wrapped into the model contract.

A small YAML says what its ONNX file does not: how pictures go in and what comes out.

    version: 1
    input:
      layout: NCHW              # or NHWC
      colours: RGB              # or BGR
      scale: 0.00392156862745   # value = (pixel × scale - mean) / std, in the order of `colours`
      mean: [0.485, 0.456, 0.406]
      std: [0.229, 0.224, 0.225]
      height: 384               # needed where the file leaves the size open
      width: 640
    output:
      kind: metric              # metres; or relative (grows with distance), disparity (falls with distance)
      scale: 1.0                # output × scale; -1 turns a sign
      focal: null               # canonical networks: depth = output × fx / focal

Names (`input.name`, `output.name`) are needed where there are several. Only metric networks give metres;
for the others `depth` is the network's own output, and the gate compares that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.bundle import DepthKind
from fsmde_edge.compiler.plan import FOREIGN
from fsmde_edge.compiler.simplify import fold_constants, run_model, waves
from fsmde_edge.errors import InputError
from fsmde_edge.evaluation.gate import TILE
from fsmde_edge.graph.model import (
    DOUBLE,
    FLOAT,
    FLOAT16,
    UINT8,
    Interface,
    TensorType,
    add_constant,
    attribute,
    constant,
    copy_model,
    infer_shapes,
    interface,
    load_model,
    sort_nodes,
    tensor_types,
    tidy,
)
from fsmde_edge.recipes import from_mapping, read_yaml

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

VERSION = 1
_HINT = "describe its input and output in a YAML and give it with --convention"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignInput:
    """How pictures go into the network.

    Attributes:
        name: the input's name; empty where there is only one.
        layout: NCHW or NHWC.
        dtype: float32, or uint8 for networks that normalise for themselves.
        colours: RGB or BGR.
        scale: value = (pixel × scale - mean) / std.
        mean: one number a channel, in the order of `colours`.
        std: likewise.
        height: network pixels, where the file leaves it open.
        width: likewise.
    """

    name: str = ""
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: Literal["float32", "uint8"] = "float32"
    colours: Literal["RGB", "BGR"] = "RGB"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    height: int | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        for name in ("scale", "std", "height", "width"):
            value = getattr(self, name)
            if value is not None and not np.all(np.asarray(value) > 0):
                raise InputError(f"input.{name} must be above zero", hint=f"correct input.{name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignOutput:
    """What comes out of the network.

    Attributes:
        name: the output's name; empty where there is only one.
        kind: metric, relative or disparity.
        scale: the output is multiplied by it.
        focal: depth = output × fx / focal, for networks with a canonical camera; None for others.
    """

    name: str = ""
    kind: DepthKind = "metric"
    scale: float = 1.0
    focal: float | None = None

    def __post_init__(self) -> None:
        if self.scale == 0:
            raise InputError("output.scale must not be zero", hint="1 leaves the output as it is")
        if self.focal is not None and not self.focal > 0:
            raise InputError("output.focal must be above zero", hint="write it in network pixels")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignConfig:
    """The whole YAML."""

    version: int
    input: ForeignInput = field(default_factory=ForeignInput)
    output: ForeignOutput = field(default_factory=ForeignOutput)

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise InputError(f"convention version {self.version} is not known", hint="update fsmde-edge")

    @property
    def metric(self) -> bool:
        """Whether the network gives metres."""
        return self.output.kind == "metric"

    @classmethod
    def load(cls, path: Path) -> ForeignConfig:
        """Read the YAML.

        Errors:
            InputError: unreadable, unknown keys, wrong types or values.
        """
        return cls.from_dict(read_yaml(path), where=path)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, where: object = None) -> ForeignConfig:
        """Check a parsed YAML.

        Errors:
            InputError: as `load`.
        """
        return from_mapping(cls, raw, where=where)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignNetwork:
    """A wrapped network: a tidy model that keeps the contract, and what its depth is."""

    model: ModelProto
    kind: DepthKind
    focal: float | None
    interface: Interface

    @property
    def metric(self) -> bool:
        """Whether it gives metres."""
        return self.kind == "metric"


def load_foreign(path: Path, config: Path | None, *, views: int) -> ForeignNetwork:
    """Read somebody else's ONNX file and wrap it.

    Args:
        path: the ONNX file.
        config: its YAML; None for a file that keeps the model contract already.
        views: V of the bundle.

    Errors:
        InputError: shapes are open or wrong and nothing says which, the batch cannot be made V, a constant is
            not finite, or the pictures are smaller than a tile of the gate.
    """
    model = load_model(path)
    _refuse_not_finite(model, path)
    if _is_open(model.graph.output) and not _is_open(model.graph.input):
        model = fold_constants(model, where=path)  # as PyTorch's older exporter leaves reflection pads
    if config is not None:
        network = wrap(model, ForeignConfig.load(config), views=views, where=path)
    else:
        face = interface(model, where=path)
        network = ForeignNetwork(model=model, kind="metric", focal=None, interface=face)
    face = network.interface
    if face.views != views:
        raise InputError(
            f"takes {face.views} views, the recipe has {views} cameras",
            where=path,
            hint=f"export it again with a batch of {views}, or choose another recipe",
        )
    if min(face.height, face.width) < TILE:
        raise InputError(
            f"takes pictures of {face.height}x{face.width}, too small to be judged",
            where=path,
            hint=f"give a network of at least {TILE}x{TILE} pixels",
        )
    return network


def _refuse_not_finite(model: ModelProto, where: object) -> None:
    for weight in model.graph.initializer:
        if weight.data_type in {FLOAT, FLOAT16, DOUBLE}:
            value = constant(model.graph, weight.name)
            if value is not None and not np.isfinite(value.astype(np.float64)).all():
                raise InputError(
                    f"its constant {weight.name} holds values that are not finite",
                    where=where,
                    hint="export the network again from sound weights",
                )


def _is_open(infos: Iterable[ValueInfoProto]) -> bool:
    """Whether any of them has a dimension without a number."""
    return any(not size.HasField("dim_value") for info in infos for size in info.type.tensor_type.shape.dim)


def wrap(model: ModelProto, config: ForeignConfig, *, views: int, where: object = None) -> ForeignNetwork:
    """Wrap a network into the model contract.

    Args:
        model: its tidy model.
        config: what its file does not say.
        views: V of the result.
        where: its file, for messages.

    Errors:
        InputError: see `load_foreign`.
    """
    source = _pick(model.graph.input, config.input.name, "input", where)
    target = _pick(model.graph.output, config.output.name, "output", where)
    height, width = _size(source, config.input, where)
    batched = _with_batch(model, source.name, _input_shape(config.input, views, height, width), where)
    wrapped = _prefixed(batched)
    map_size = _map_size(model, wrapped, target.name, views, where)
    _add_input(wrapped, config.input, f"{FOREIGN}{source.name}", (views, height, width))
    _add_output(wrapped, config.output, f"{FOREIGN}{target.name}", map_size, (views, height, width))
    sort_nodes(wrapped.graph, where)
    wrapped = tidy(wrapped, where=where)
    return ForeignNetwork(
        model=wrapped,
        kind=config.output.kind,
        focal=config.output.focal,
        interface=interface(wrapped, where),
    )


def _with_batch(model: ModelProto, name: str, shape: tuple[int, ...], where: object) -> ModelProto:
    """The model for V views: its shapes set, and where it was made for one picture, its reshapes too.

    Errors:
        InputError: V pictures at once do not give what they give one by one.
    """
    static = tensor_types(model)[name].shape
    if static == shape:
        return model
    single = _resized(model, name, (1, *shape[1:]))
    if single is None:
        raise InputError(f"cannot take pictures of shape {list(shape[1:])}", where=where, hint=_HINT)
    if shape[0] == 1:
        return single
    for candidate in (model, _free_batch(model)):
        many = _resized(candidate, name, shape)
        if many is not None and _same_one_by_one(single, many, name, shape):
            return many
    raise InputError(
        f"is made for one picture at a time and cannot be rewritten for {shape[0]}",
        where=where,
        hint=f"export it again with a batch of {shape[0]}",
    )


def _resized(model: ModelProto, name: str, shape: tuple[int, ...]) -> ModelProto | None:
    """The model with another input shape, shapes inferred; None where they contradict."""
    copy = copy_model(model)
    for info in copy.graph.input:
        if info.name == name:
            del info.type.tensor_type.shape.dim[:]
            for size in shape:
                info.type.tensor_type.shape.dim.add(dim_value=size)
    for info in copy.graph.output:
        info.type.tensor_type.ClearField("shape")
    try:
        return infer_shapes(copy)
    except InputError:
        return None


def _free_batch(model: ModelProto) -> ModelProto:
    """A copy whose Reshapes to [1, …] keep the first axis as it comes instead."""
    copy = copy_model(model)
    for node in copy.graph.node:
        shape = constant(copy.graph, node.input[1]) if node.op_type == "Reshape" else None
        zero = attribute(node, "allowzero")
        if shape is None or shape.size < 2 or int(shape[0]) != 1 or (zero is not None and zero.i):
            continue
        free = np.array([0, *shape[1:]], dtype=np.int64)
        node.input[1] = add_constant(copy.graph, f"{node.output[0]}_free_batch", free)
    return copy


@np.errstate(all="ignore")  # what is not a number is refused, not warned of
def _same_one_by_one(single: ModelProto, many: ModelProto, name: str, shape: tuple[int, ...]) -> bool:
    """Whether V different pictures give together what each gives alone."""
    batch = waves(many)[name]
    try:
        together = run_model(many, {name: batch})
        alone = [run_model(single, {name: batch[i : i + 1]}) for i in range(shape[0])]
    except Exception:  # whatever ONNX Runtime dislikes about the rewritten graph
        return False
    for key, value in together.items():
        rows = [one[key] for one in alone]
        if value.shape[0] != shape[0] or any(row.shape[0] != 1 for row in rows):
            return False
        if not np.allclose(
            value, np.concatenate(rows), rtol=1e-3, atol=1e-4 * max(float(np.abs(value).max()), 1e-9)
        ):
            return False
    return True


def _prefixed(model: ModelProto) -> ModelProto:
    """A copy whose names cannot meet the contract's: all begin with net/."""
    from onnx import compose

    return compose.add_prefix(copy_model(model), FOREIGN)


def _add_input(model: ModelProto, config: ForeignInput, name: str, size: tuple[int, int, int]) -> None:
    """uint8 [V,H,W,3] RGB to what the network wants."""
    from onnx import TensorProto, helper

    graph, steps = model.graph, _Chain(model)
    del graph.input[:]
    views, height, width = size
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, (views, height, width, 3)))
    graph.input.append(helper.make_tensor_value_info("focal", TensorProto.FLOAT, (views,)))
    x = steps.add("Cast", "images", to=TensorProto.FLOAT)
    channel_axis = 1 if config.layout == "NCHW" else 3
    if config.layout == "NCHW":
        x = steps.add("Transpose", x, perm=[0, 3, 1, 2])
    if config.colours == "BGR":
        x = steps.add("Gather", x, steps.const(np.array([2, 1, 0], dtype=np.int64)), axis=channel_axis)
    if config.dtype == "uint8":
        steps.add("Cast", x, to=TensorProto.UINT8, output=name)
        return
    spread = (1, 3, 1, 1) if config.layout == "NCHW" else (1, 1, 1, 3)
    mean, std = (np.array(values, dtype=np.float64) for values in (config.mean, config.std))
    x = steps.add("Sub", x, steps.const((mean / config.scale).astype(np.float32).reshape(spread)))
    steps.add("Mul", x, steps.const((config.scale / std).astype(np.float32).reshape(spread)), output=name)


def _add_output(
    model: ModelProto, config: ForeignOutput, name: str, map_size: tuple[int, int], size: tuple[int, int, int]
) -> None:
    """The network's map of size (rows, columns) to `depth` of size (V, H, W)."""
    from onnx import TensorProto, helper

    graph, steps, (rows, columns), (views, height, width) = model.graph, _Chain(model), map_size, size
    x = steps.add("Reshape", name, steps.const(np.array([views, 1, rows, columns], dtype=np.int64)))
    if (rows, columns) != (height, width):
        sizes = steps.const(np.array([views, 1, height, width], dtype=np.int64))
        half_pixel = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        x = steps.add("Resize", x, "", "", sizes, **half_pixel)
    x = steps.add("Squeeze", x, steps.const(np.array([1], dtype=np.int64)))
    if config.focal is not None:
        focal = steps.add("Reshape", "focal", steps.const(np.array([views, 1, 1], dtype=np.int64)))
        x = steps.add("Mul", x, steps.add("Div", focal, steps.const(np.float32(config.focal))))
    steps.add("Mul", x, steps.const(np.float32(config.scale)), output="depth")
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("depth", TensorProto.FLOAT, (views, height, width)))


class _Chain:
    """Adds nodes and constants under fresh names."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph

    def add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or f"wrap/{op.lower()}{len(self.graph.node)}"
        name = f"wrap/{op}_{len(self.graph.node)}"
        self.graph.node.append(helper.make_node(op, list(inputs), [output], name=name, **attributes))
        return output

    def const(self, value: NDArray[Any] | np.generic) -> str:
        return add_constant(self.graph, f"wrap/const{len(self.graph.initializer)}", np.asarray(value))


def _map_size(
    original: ModelProto, wrapped: ModelProto, name: str, views: int, where: object
) -> tuple[int, int]:
    """Rows and columns of the network's output.

    Errors:
        InputError: it is not one map a picture.
    """
    kind = tensor_types(wrapped).get(f"{FOREIGN}{name}", TensorType(0, None))
    shape = kind.shape or ()
    maps = shape
    if len(shape) == 4:  # one channel, first or last
        maps = shape[:1] + (shape[2:] if shape[1] == 1 else shape[1:3] if shape[3] == 1 else ())
    if kind.dtype != FLOAT or len(maps) != 3 or maps[0] != views:
        raise InputError(
            f"its output {name} has shape {list(shape) or 'dynamic'}, expected one float32 map a picture",
            where=where,
            hint="name the depth output in the YAML (output.name)"
            if len(original.graph.output) > 1
            else _HINT,
        )
    return maps[1], maps[2]


def _pick(infos: Iterable[ValueInfoProto], name: str, what: str, where: object) -> ValueInfoProto:
    infos = list(infos)
    names = [info.name for info in infos]
    if name and name not in names:
        raise InputError(f"has no {what} {name}", where=where, hint=f"choose one of: {', '.join(names)}")
    if not name and len(names) != 1:
        raise InputError(
            f"has {len(names)} {what}s: {', '.join(names)}",
            where=where,
            hint=f"name one in the YAML ({what}.name)",
        )
    return next(info for info in infos if info.name == (name or names[0]))


def _size(info: ValueInfoProto, config: ForeignInput, where: object) -> tuple[int, int]:
    """Height and width: the file's where they are fixed, else the YAML's."""
    wanted = UINT8 if config.dtype == "uint8" else FLOAT
    axes = info.type.tensor_type.shape.dim
    if info.type.tensor_type.elem_type != wanted or len(axes) != 4:
        raise InputError(
            f"its input {info.name} is not {config.dtype} with four axes", where=where, hint=_HINT
        )
    order = (2, 3, 1) if config.layout == "NCHW" else (1, 2, 3)
    height, width, channels = (axes[i].dim_value if axes[i].HasField("dim_value") else None for i in order)
    if channels not in {3, None}:
        raise InputError(
            f"its input {info.name} has {channels} channels in {config.layout}", where=where, hint=_HINT
        )
    found = []
    for key, fixed, said in (("height", height, config.height), ("width", width, config.width)):
        if fixed is None and said is None:
            raise InputError(f"leaves its {key} open", where=where, hint=f"write input.{key} in the YAML")
        if fixed is not None and said is not None and fixed != said:
            raise InputError(
                f"has {key} {fixed}, the YAML says {said}", where=where, hint=f"correct input.{key}"
            )
        found.append(fixed if fixed is not None else said)
    assert found[0] is not None
    assert found[1] is not None
    return found[0], found[1]


def _input_shape(config: ForeignInput, views: int, height: int, width: int) -> tuple[int, ...]:
    return (views, 3, height, width) if config.layout == "NCHW" else (views, height, width, 3)
