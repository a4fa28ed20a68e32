"""ResNet-18, with the public names and shapes, so that ImageNet weights load; narrower by one number.

Source of the architecture: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PIXEL_CENTRE = 128.0
PIXEL_SCALE = 64.0
"""The student sees (pixel - 128) / 64: symmetric about 0, so INT8 uses all eight bits and zero padding
is a mid-grey border, exactly, quantised or not."""


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: relu(x + f(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.relu(shortcut + self.bn2(self.conv2(y)))
        return out


class ResNetEncoder(nn.Module):
    """ResNet-18 without its classifier.

    Args:
        width: channels of the stem (64 is the published network).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(width, width, 1)
        self.layer2 = _stage(width, 2 * width, 2)
        self.layer3 = _stage(2 * width, 4 * width, 2)
        self.layer4 = _stage(4 * width, 8 * width, 2)
        self.channels = (width, 2 * width, 4 * width, 8 * width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalised pictures [N, 3, H, W] to features at 1/4, 1/8, 1/16 and 1/32."""
        quarter = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        eighth = self.layer2(quarter)
        sixteenth = self.layer3(eighth)
        return quarter, eighth, sixteenth, self.layer4(sixteenth)

    def load_imagenet(self, weights: dict[str, Tensor]) -> None:
        """Take public ImageNet weights, which expect (x / 255 - mean) / std, into our input scaling.

        The stem's weights absorb the change of scale and its batch norm's mean the change of offset, so
        that away from the picture's border (where zero padding now means mid-grey) nothing changes.

        Args:
            weights: a state dict of torchvision's `resnet18`; its classifier is left out.
        """
        weights = {name: value.clone() for name, value in weights.items() if not name.startswith("fc.")}
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        stem = weights["conv1.weight"]
        offset = (PIXEL_CENTRE / 255 - mean) / std
        weights["bn1.running_mean"] -= (stem * offset[:, None, None]).sum(dim=(1, 2, 3))
        weights["conv1.weight"] = stem * (PIXEL_SCALE / 255 / std)[:, None, None]
        self.load_state_dict(weights)


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1))
