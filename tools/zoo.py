"""Small depth networks in other people's styles, for trying the compiler on what is not ours.

Each takes RGB pictures float32 [N, 3, H, W] in its own normalisation and gives one map [N, 1, H, W]: metres
for a camera of focal length `FOCAL`, or a disparity in 0..1 (`from_disparity`). Together they hold the parts
that people build depth networks from; `Style.parts` names them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

FOCAL = 90.0
"""Pixels; about what the synthetic rigs have at a width of 160."""

NEAREST, FARTHEST = 0.5, 120.0
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PLAIN = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """One network of the zoo.

    Attributes:
        make: builds it.
        parts: what makes it different.
        disparity: it gives a sigmoid, not metres.
        statistics: mean and standard deviation of its input.
        opset: it is exported in.
    """

    make: Callable[[], nn.Module]
    parts: str
    disparity: bool = False
    statistics: Statistics = IMAGENET
    opset: int = 17


def from_disparity(value: Tensor) -> Tensor:
    """A sigmoid to metres."""
    return 1 / (1 / FARTHEST + (1 / NEAREST - 1 / FARTHEST) * value)


def conv(
    inputs: int, outputs: int, act: nn.Module | None, *, k: int = 3, stride: int = 1, group: int = 1
) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    parts: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, k, stride, k // 2, groups=group, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*parts, *([act] if act is not None else []))


class Squeeze(nn.Module):
    """Squeeze and excitation: a gate of each channel from the pooled map."""

    def __init__(self, channels: int, gate: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, max(8, channels // 4), 1)
        self.outer = nn.Conv2d(max(8, channels // 4), channels, 1)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        pooled = functional.adaptive_avg_pool2d(x, 1)
        return x * self.gate(self.outer(torch.relu(self.inner(pooled))))


class Inverted(nn.Module):
    """An inverted residual: expand, depthwise, optionally squeeze, project without activation."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, act: type[nn.Module], gate: nn.Module | None
    ) -> None:
        super().__init__()
        wide = 4 * inputs
        self.short = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            conv(inputs, wide, act(), k=1),
            conv(wide, wide, act(), stride=stride, group=wide),
            Squeeze(wide, gate) if gate is not None else nn.Identity(),
            conv(wide, outputs, None, k=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, outputs, H / stride, W / stride]."""
        return x + self.body(x) if self.short else self.body(x)


class Mobile(nn.Module):
    """Inverted residuals down, depthwise-separable convolutions up, skips by Add."""

    def __init__(self, act: type[nn.Module], gate: nn.Module | None, mode: str) -> None:
        super().__init__()
        widths = (16, 24, 40, 64)
        self.stem = conv(3, widths[0], act(), stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(Inverted(a, b, 2, act, gate), Inverted(b, b, 1, act, gate))
            for a, b in pairwise(widths)
        )
        self.laterals = nn.ModuleList(conv(width, 24, None, k=1) for width in widths)
        self.smooth = nn.ModuleList(
            nn.Sequential(conv(24, 24, None, group=24), conv(24, 24, act(), k=1)) for _ in widths[1:]
        )
        self.head = nn.Sequential(conv(24, 24, act()), nn.Conv2d(24, 1, 3, 1, 1))
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        """Pictures to metres."""
        features = [self.stem(x)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        y = self.laterals[-1](features[-1])
        for level in reversed(range(3)):
            y = self._up(y) + self.laterals[level](features[level])
            y = self.smooth[level](y)
        return from_logits(self._up(self.head(y)))

    def _up(self, x: Tensor) -> Tensor:
        if self.mode == "nearest":
            return functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return functional.interpolate(x, scale_factor=2.0, mode=self.mode, align_corners=False)


def from_logits(x: Tensor) -> Tensor:
    """What a network says to metres, by a clamped exponential."""
    return torch.exp(x.clamp(-4, 3)) * 6.0


class UNet(nn.Module):
    """Double convolutions, skips by Concat, transposed convolutions up."""

    def __init__(self, act: Callable[[int], nn.Module], *, transposed: bool) -> None:
        super().__init__()
        widths = (12, 24, 40, 64)
        self.down = nn.ModuleList(
            nn.Sequential(conv(a, b, act(b)), conv(b, b, act(b)))
            for a, b in zip((3, *widths), widths, strict=False)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 2, 2) if transposed else nn.Conv2d(b, a, 1) for a, b in pairwise(widths)
        )
        self.fuse = nn.ModuleList(
            nn.Sequential(conv(2 * a, a, act(a)), conv(a, a, act(a))) for a in widths[:-1]
        )
        self.head = nn.Conv2d(widths[0], 1, 1)
        self.transposed = transposed

    def forward(self, x: Tensor) -> Tensor:
        """Pictures to metres, by a softplus."""
        features: list[Tensor] = []
        for i, block in enumerate(self.down):
            features.append(block(functional.max_pool2d(features[-1], 2) if i else x))
        y = features[-1]
        for level in reversed(range(3)):
            y = self.up[level](y)
            if not self.transposed:
                y = functional.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=True)
            y = self.fuse[level](torch.cat([features[level], y], dim=1))
        return functional.softplus(self.head(y)) * 8 + NEAREST


class Disparity(nn.Module):
    """A pre-activation ResNet (its batch norms fold into nothing), ELU decoder, reflection pads, sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 24, 40, 64)
        self.stem = nn.Conv2d(3, widths[0], 5, 2, 2)
        self.stages = nn.ModuleList(PreActivation(a, b) for a, b in pairwise(widths))
        self.first = nn.ModuleList(nn.Conv2d(b, a, 3) for a, b in pairwise(widths))
        self.second = nn.ModuleList(nn.Conv2d(2 * a, a, 3) for a in widths[:-1])
        self.head = nn.Conv2d(widths[0], 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures to a disparity in 0..1."""
        features = [self.stem(x)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        y = features[-1]
        for level in reversed(range(3)):
            y = functional.interpolate(functional.elu(self.first[level](mirror(y))), scale_factor=2.0)
            y = functional.elu(self.second[level](mirror(torch.cat([y, features[level]], dim=1))))
        y = functional.interpolate(y, scale_factor=2.0)
        return torch.sigmoid(self.head(mirror(y)) - 2)


class PreActivation(nn.Module):
    """norm, ReLU, convolution, twice; the sum goes on bare."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.short = nn.Conv2d(inputs, outputs, 1, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H/2, W/2]."""
        y = torch.relu(self.norm1(x))
        return self.conv2(torch.relu(self.norm2(self.conv1(y)))) + self.short(y)


def mirror(x: Tensor) -> Tensor:
    """One pixel more on each side."""
    return functional.pad(x, (1, 1, 1, 1), mode="reflect")


class Tokens(nn.Module):
    """Patches, two transformer blocks (LayerNorm, attention, GELU), a convolutional decoder with GELU."""

    def __init__(self, channels: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.early = nn.Sequential(conv(3, 16, nn.GELU(), stride=2), conv(16, 32, nn.GELU(), stride=2))
        self.patches = nn.Conv2d(32, channels, 4, 4)
        self.place = nn.Parameter(torch.randn(1, 60, channels) * 0.02)
        self.blocks = nn.ModuleList(Block(channels, heads) for _ in range(2))
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Conv2d(channels, 32, 1)
        self.mix = nn.Sequential(conv(64, 32, nn.GELU()), conv(32, 32, nn.GELU()))
        self.head = nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures to metres; the head is a matrix product that makes 4×4 pixels of each place."""
        early = self.early(x)
        y = self.patches(early)
        count, channels, rows, columns = y.shape
        tokens = y.flatten(2).transpose(1, 2) + self.place
        for block in self.blocks:
            tokens = block(tokens)
        y = self.norm(tokens).transpose(1, 2).reshape(count, channels, rows, columns)
        y = functional.interpolate(self.project(y), scale_factor=4.0, mode="bilinear", align_corners=False)
        y = self.head(self.mix(torch.cat([y, early], dim=1)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return from_logits(functional.pixel_shuffle(y, 4))


class Block(nn.Module):
    """Attention and a two-layer perceptron, both behind a LayerNorm."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.up, self.down = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, C] to the same."""
        count, places, channels = x.shape
        parts = self.qkv(self.norm1(x)).reshape(count, places, 3, self.heads, channels // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-2, -1) * (channels // self.heads) ** -0.5, dim=-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(count, places, channels))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


ZOO: Mapping[str, Style] = {
    "mobile-silu": Style(
        make=lambda: Mobile(nn.SiLU, nn.Sigmoid(), "nearest"),
        parts="SiLU, depthwise, squeeze-and-excitation, nearest Resize, Add skips",
    ),
    "mobile-hardswish": Style(
        make=lambda: Mobile(nn.Hardswish, nn.Hardsigmoid(), "bilinear"),
        parts="hard-swish, depthwise, hard-sigmoid gates, bilinear Resize",
        statistics=PLAIN,
    ),
    "mobile-relu6": Style(
        make=lambda: Mobile(nn.ReLU6, None, "nearest"),
        parts="ReLU6, depthwise, linear bottlenecks",
        opset=13,
    ),
    "unet-transposed": Style(
        make=lambda: UNet(lambda _: nn.LeakyReLU(0.1), transposed=True),
        parts="LeakyReLU, Concat skips, transposed convolutions, MaxPool, Softplus",
    ),
    "unet-prelu": Style(
        make=lambda: UNet(nn.PReLU, transposed=False),
        parts="PReLU, Concat skips, bilinear Resize (aligned corners)",
        statistics=PLAIN,
        opset=13,
    ),
    "unet-silu": Style(
        make=lambda: UNet(lambda _: nn.SiLU(), transposed=True),
        parts="SiLU, Concat skips, transposed convolutions",
    ),
    "disparity": Style(
        make=Disparity,
        parts="unfoldable BatchNorm, ELU, reflection Pad, Concat, sigmoid disparity",
        disparity=True,
    ),
    "tokens": Style(
        make=Tokens,
        parts="attention, LayerNorm, GELU, MatMul, matrix-product head, DepthToSpace",
    ),
}
