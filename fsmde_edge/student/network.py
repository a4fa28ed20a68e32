"""The student: one network for one view, shared by all; a frame set is its batch."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from fsmde_edge.student.bins import BinDepth, BinHead
from fsmde_edge.student.config import StudentConfig
from fsmde_edge.student.decoder import Decoder
from fsmde_edge.student.encoder import PIXEL_CENTRE, PIXEL_SCALE, ResNetEncoder


class Features(NamedTuple):
    """What the student sees in a batch of views, before the bin head.

    Attributes:
        encoder: at 1/4, 1/8, 1/16 and 1/32 of the picture.
        decoder: [N, C, H / 4, W / 4].
    """

    encoder: tuple[Tensor, Tensor, Tensor, Tensor]
    decoder: Tensor


class Prediction(NamedTuple):
    """What the student says of a batch of views.

    Attributes:
        depth: [N, H, W] in metres along z, for the cameras' own focal lengths.
        confidence: [N, H, W] in 0..1.
        bins: the distribution behind it, at 1/4 size and for focal length f0.
    """

    depth: Tensor
    confidence: Tensor
    bins: BinDepth


class Student(nn.Module):
    """Per-view depth network with a bin head.

    Args:
        config: its sizes.
    """

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ResNetEncoder(config.width)
        self.decoder = Decoder(self.encoder.channels, config.decoder)
        self.head = BinHead(config.decoder[3], self.encoder.channels[3], config.bins, config.depth_range)

    def forward(self, pictures: Tensor, focal: Tensor) -> Prediction:
        """Depth of a batch of views.

        Args:
            pictures: float [N, 3, H, W], RGB in 0..255; H and W multiples of 32.
            focal: float [N], fx in pixels of these pictures.
        """
        return self.predict(self.features(pictures), focal)

    def features(self, pictures: Tensor) -> Features:
        """Features of pictures as `forward` takes them."""
        encoder = self.encoder((pictures - PIXEL_CENTRE) * (1 / PIXEL_SCALE))
        return Features(encoder, self.decoder(encoder))

    def predict(self, features: Features, focal: Tensor) -> Prediction:
        """Depth from features; `focal` as in `forward`."""
        bins = self.head(features.decoder, features.encoder[3])
        # Inverse depth, so that a near thing's edge before the sky stays near: halfway between 5 m and
        # 250 m lie 10 m, not 127 m.
        inverse = functional.interpolate(1 / bins.depth, scale_factor=4, mode="bilinear", align_corners=False)
        confidence = functional.interpolate(
            bins.confidence, scale_factor=4, mode="bilinear", align_corners=False
        )
        metres = (1 / inverse).squeeze(1) * (focal / self.config.focal)[:, None, None]
        return Prediction(metres, confidence.squeeze(1), bins)


class DeployedStudent(nn.Module):
    """The student behind the model contract: uint8 [V, H, W, 3] and focal [V] to (depth, confidence)."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: Tensor, focal: Tensor) -> tuple[Tensor, Tensor]:
        """Cast first, then transpose: TensorRT takes uint8 into a Cast alone."""
        prediction = self.student(images.float().permute(0, 3, 1, 2), focal)
        return prediction.depth, prediction.confidence
