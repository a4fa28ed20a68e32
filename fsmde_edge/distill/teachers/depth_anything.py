"""Depth Anything V2 as a teacher, through the package transformers.

Source of the model: Yang et al., "Depth Anything V2", NeurIPS 2024. Its picture processing (bicubic to an
edge of 518 pixels with the aspect kept, multiples of 14, ImageNet's mean and deviation) is done here with
PyTorch alone, since the package's own processors want torchvision.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fsmde_edge.distill.teachers.base import (
    TeacherOutput,
    at_picture_size,
    count_parameters,
    fingerprint,
    frozen,
    resize_pictures,
)
from fsmde_edge.distill.teachers.recipe import PATCH, TeacherRecipe
from fsmde_edge.errors import InputError, MissingExtra
from fsmde_edge.student.encoder import IMAGENET_MEAN, IMAGENET_STD

VERSION = 1
"""Of the arithmetic in this file: raise it with every change of an output, so that no old cache is read."""

EDGE = 518
"""Pixels: the edge at which the published models look, 37 patches."""

NEAREST_SHARE = 1e-3
"""A metric model's depth counts as at least this share of its maximum: a sigmoid may say 0 m."""

_PROVENANCE = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")
"""Keys of a config that say where weights came from, not what they compute."""

_PICKLES = ("*.bin", "*.pth", "*.pt", "*.ckpt")


@dataclass(frozen=True, slots=True, eq=False)
class DepthAnything:
    """Depth Anything (Small, Base, Large); see `Teacher`.

    Disparity is what a relative model says as it is: inverse depth up to scale and shift, 0 far away. A
    metric model says metres, as for the camera that it was trained with; its disparity is their inverse, and
    its scale means no more here than a relative model's.

    Features are the neck's last fused map, at 8/14 of what the model sees: the one its depth head reads, so
    structure and depth edges are in it and all backbone stages have a part. The backbone's last stage is four
    to six times as wide at an eighth of that resolution: more of what things are, less of where they end.
    """

    name: str
    fingerprint: str
    parameters: int
    model: Any
    device: torch.device
    recipe: TeacherRecipe

    @classmethod
    def load(cls, recipe: TeacherRecipe, device: torch.device) -> DepthAnything:
        """Read a folder, or a hub's model by name; weights are safetensors or refused.

        Raises:
            MissingExtra: without the package transformers.
            InputError: no such folder, another class of model, weights missing, pickled or broken, or a hub
                that cannot be reached.
        """
        model = _read(recipe.source)
        frozen(model, device)
        settings = {
            "kind": recipe.kind,
            "version": VERSION,
            "config": _without_provenance(model.config.to_dict()),
            "size": recipe.size,
            "feature_stride": recipe.feature_stride,
            "precision": "float16" if device.type == "cuda" else "float32",
        }
        return cls(
            name=Path(recipe.source).name,
            fingerprint=fingerprint(model, settings),
            parameters=count_parameters(model),
            model=model,
            device=device,
            recipe=recipe,
        )

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> TeacherOutput:
        """See `Teacher`; half precision on CUDA, norms and softmax in float32."""
        height, width = pictures.shape[-2:]
        seen = resize_pictures(pictures.to(self.device), self.recipe.size or network_size(height, width))
        half = torch.autocast("cuda", dtype=torch.float16, enabled=self.device.type == "cuda")
        with half, _recording(self.model.neck) as necks:
            said = self.model(pixel_values=_normalise(seen)).predicted_depth
        config = self.model.config
        disparity = said.float()
        if config.depth_estimation_type == "metric":
            disparity = 1 / disparity.clamp_min(NEAREST_SHARE * config.max_depth)
        return at_picture_size(
            disparity, necks[0][config.head_in_index], pictures, self.recipe.feature_stride
        )


def network_size(height: int, width: int) -> tuple[int, int]:
    """The size at which the published models look at a picture: the smaller change brings an edge to 518.

    Both edges are scaled by one of 518 / height and 518 / width, whichever is nearer to 1, and rounded to
    multiples of 14. Source: the published models' preprocessor_config.json, as transformers reads it.
    """
    scale = min(EDGE / height, EDGE / width, key=lambda factor: abs(1 - factor))
    return tuple(max(1, round(scale * edge / PATCH)) * PATCH for edge in (height, width))  # type: ignore[return-value]


def _normalise(pictures: Tensor) -> Tensor:
    mean = torch.tensor(IMAGENET_MEAN, device=pictures.device)[:, None, None]
    deviation = torch.tensor(IMAGENET_STD, device=pictures.device)[:, None, None]
    return (pictures / 255 - mean) / deviation


@contextmanager
def _recording(module: nn.Module) -> Iterator[list[Any]]:
    """What a module returns while the block runs."""
    outputs: list[Any] = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        hook.remove()


def _without_provenance(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _without_provenance(value) for key, value in config.items() if key not in _PROVENANCE}
    return config


def _read(source: str) -> Any:
    try:
        from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation
    except ImportError as error:
        raise MissingExtra("transformers", extra="teacher", why="the teacher depth-anything") from error
    folder = Path(source).expanduser()
    if folder.is_dir():
        _refuse_incomplete(folder)
        source = str(folder)
    elif not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise InputError(
            "no such folder, and no hub name (owner/model) either",
            where=source,
            hint="give a folder that holds config.json and model.safetensors",
        )
    try:
        with _quietly():
            _refuse_another_class(DepthAnythingConfig.get_config_dict(source)[0], source)
            model, report = DepthAnythingForDepthEstimation.from_pretrained(
                source, use_safetensors=True, output_loading_info=True
            )
    except InputError:
        raise
    except Exception as error:  # the package, its hub client and broken bytes raise classes of every kind
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        hint = (
            "copy or download it again"
            if folder.is_dir()
            else "download the model on a machine that reaches its hub, and give the folder here"
        )
        raise InputError(f"cannot be loaded as a teacher ({reason})", where=source, hint=hint) from error
    absent = sorted(map(str, report["missing_keys"]))
    if absent:  # the package would draw them at random, with a warning
        raise InputError(
            f"lacks {len(absent)} of the teacher's tensors, {absent[0]} among them",
            where=source,
            hint="copy or download it again",
        )
    return model


def _refuse_incomplete(folder: Path) -> None:
    """The package would take a default config without a word, and names no pickles."""
    if not (folder / "config.json").is_file():
        raise InputError(
            "holds no config.json", where=folder, hint="give the folder of a model that transformers saved"
        )
    if any(folder.glob("*.safetensors")):
        return
    if any(path for pattern in _PICKLES for path in folder.glob(pattern)):
        raise InputError(
            "holds pickled weights alone, which can run code when they are opened",
            where=folder,
            hint="download the model's safetensors file into that folder",
        )
    raise InputError("holds no weights", where=folder, hint="put the model's model.safetensors there")


def _refuse_another_class(config: dict[str, Any], source: str) -> None:
    kind, patch = config.get("model_type"), config.get("patch_size", PATCH)
    if kind != "depth_anything" or patch != PATCH:
        found = f"model_type {kind!r}" if kind != "depth_anything" else f"patches of {patch!r} pixels"
        raise InputError(
            f"is no Depth Anything model of patch size {PATCH}: its config says {found}",
            where=source,
            hint="give a Depth Anything V2 model, Small, Base or Large, in transformers' format",
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """No warnings of the libraries' own, and no bars but on a terminal; what matters is checked by us."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging as library

    levels = library.get_verbosity(), hub.get_verbosity()
    bars = library.is_progress_bar_enabled()
    library.set_verbosity_error()
    hub.set_verbosity_error()
    if not sys.stderr.isatty():
        library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(levels[0])
        hub.set_verbosity(levels[1])
        if bars:
            library.enable_progress_bar()
