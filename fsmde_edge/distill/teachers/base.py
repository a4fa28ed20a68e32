"""What a teacher is, and what all of them share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


class TeacherOutput(NamedTuple):
    """What a teacher says of a batch of pictures.

    Attributes:
        disparity: float32 [N, H, W], at the pictures' size: inverse depth up to a positive scale and a shift
            of each picture; larger is nearer.
        features: float32 [N, C, H / s, W / s], s the recipe's `feature_stride`.
    """

    disparity: Tensor
    features: Tensor


class Teacher(Protocol):
    """A frozen network that knows depth up to scale and shift."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the weights and every setting that changes the output."""

    @property
    def parameters(self) -> int:
        """How many numbers were learnt."""

    def __call__(self, pictures: Tensor) -> TeacherOutput:
        """Look at pictures: float [N, 3, H, W], RGB in 0..255. The answer lies on the teacher's device."""


def frozen(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on its device, in eval mode, without gradients, in float32."""
    return network.float().to(device).eval().requires_grad_(False)


def count_parameters(network: nn.Module) -> int:
    """How many numbers a network learnt."""
    return sum(parameter.numel() for parameter in network.parameters())


def fingerprint(network: nn.Module, settings: Mapping[str, object]) -> str:
    """SHA-256 over a network's tensors, by name, and the settings' canonical JSON."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def resize_pictures(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures [N, 3, H, W] in 0..255 at another size: bicubic, averaging where they shrink."""
    if pictures.shape[-2:] == size:
        return pictures
    resized = functional.interpolate(pictures, size, mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp(0, 255)  # bicubic overshoots at edges


def at_picture_size(disparity: Tensor, features: Tensor, pictures: Tensor, stride: int) -> TeacherOutput:
    """A network's maps, of whatever size, brought to the pictures' own grid.

    Args:
        disparity: [N, h, w].
        features: [N, C, h', w'].
        pictures: [N, 3, H, W] as the teacher was given them.
        stride: of the features.
    """
    height, width = pictures.shape[-2:]
    coarse = max(1, height // stride), max(1, width // stride)
    return TeacherOutput(
        _resize_map(disparity.float().unsqueeze(1), (height, width)).squeeze(1),
        _resize_map(features.float(), coarse),
    )


def _resize_map(values: Tensor, size: tuple[int, int]) -> Tensor:
    if values.shape[-2:] == size:
        return values
    return functional.interpolate(values, size, mode="bilinear", align_corners=False, antialias=True)
