"""From encoder features to features at 1/4: nearest upsampling and convolutions, all fit for INT8."""

from __future__ import annotations

from torch import Tensor, nn


class ConvNormRelu(nn.Sequential):
    """Convolution, batch norm, ReLU: one INT8 kernel after the norm is folded."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class UpBlock(nn.Module):
    """Twice the resolution: nearest + 3×3, plus the encoder's skip through 1×1, then 3×3."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.reduce = ConvNormRelu(inputs, outputs)
        self.lateral = ConvNormRelu(skip, outputs, kernel=1)
        self.fuse = ConvNormRelu(outputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """[N, inputs, h, w] and [N, skip, 2h, 2w] to [N, outputs, 2h, 2w]."""
        fused: Tensor = self.fuse(self.reduce(self.up(x)) + self.lateral(skip))
        return fused


class Decoder(nn.Module):
    """Three up-blocks from 1/32 to 1/4.

    Args:
        skips: the encoder's channels at 1/4, 1/8, 1/16 and 1/32.
        channels: the decoder's at 1/32, 1/16, 1/8 and 1/4.
    """

    def __init__(self, skips: tuple[int, int, int, int], channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.bottom = ConvNormRelu(skips[3], channels[0])
        self.blocks = nn.ModuleList(UpBlock(channels[i], skips[2 - i], channels[i + 1]) for i in range(3))

    def forward(self, features: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """Encoder features to [N, channels[3], H / 4, W / 4]."""
        x: Tensor = self.bottom(features[3])
        for block, skip in zip(self.blocks, (features[2], features[1], features[0]), strict=True):
            x = block(x, skip)
        return x
