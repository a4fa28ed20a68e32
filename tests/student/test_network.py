from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fsmde_edge.errors import InputError
from fsmde_edge.student.bins import BinHead
from fsmde_edge.student.config import BASE, TINY, StudentConfig
from fsmde_edge.student.encoder import IMAGENET_MEAN, IMAGENET_STD, ResNetEncoder
from fsmde_edge.student.network import DeployedStudent, Student

SMALL = StudentConfig(name="small", width=4, decoder=(8, 8, 8, 8), bins=8)


def resnet18() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the public ResNet-18 state dict, without its classifier."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    shapes["conv1.weight"] = (64, 3, 7, 7)
    norm("bn1", 64)
    before = 64
    for layer, channels in ((1, 64), (2, 128), (3, 256), (4, 512)):
        for block in (0, 1):
            name = f"layer{layer}.{block}"
            shapes[f"{name}.conv1.weight"] = (channels, before, 3, 3)
            norm(f"{name}.bn1", channels)
            shapes[f"{name}.conv2.weight"] = (channels, channels, 3, 3)
            norm(f"{name}.bn2", channels)
            if before != channels:
                shapes[f"{name}.downsample.0.weight"] = (channels, before, 1, 1)
                norm(f"{name}.downsample.1", channels)
            before = channels
    return shapes


@pytest.fixture(scope="module")
def student():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Student(SMALL).eval()
        made.head.logits.weight.data.mul_(30)  # a distribution that differs from pixel to pixel
    return made


def pictures(count=2, height=64, width=96, seed=0):
    return 255 * torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_the_base_encoder_has_the_public_names_and_shapes():
    assert {k: tuple(v.shape) for k, v in ResNetEncoder(64).state_dict().items()} == resnet18()
    assert len(resnet18()) == 120
    assert BASE.width == 64


def test_the_tiny_student_is_tiny():
    assert sum(p.numel() for p in Student(TINY).parameters()) <= 2_000_000


def test_no_convolution_is_grouped():
    assert {m.groups for m in Student(TINY).modules() if isinstance(m, torch.nn.Conv2d)} == {1}


@torch.no_grad()
def test_shapes_ranges_and_contract(student):
    focal = torch.tensor([320.0, 160.0])
    found = student(pictures(), focal)
    assert found.depth.shape == found.confidence.shape == (2, 64, 96)
    assert found.bins.logits.shape == (2, 8, 16, 24)
    assert found.bins.depth.shape == (2, 1, 16, 24)
    assert (found.depth > 0).all()
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()
    images = pictures().to(torch.uint8)
    depth, confidence = DeployedStudent(student)(images.permute(0, 2, 3, 1).contiguous(), focal)
    expected = student(images.float(), focal)
    torch.testing.assert_close(depth, expected.depth)
    torch.testing.assert_close(confidence, expected.confidence)


@torch.no_grad()
def test_depth_scales_with_the_focal_length_exactly(student):
    base = student(pictures(), torch.tensor([320.0, 320.0])).depth
    twice = student(pictures(), torch.tensor([640.0, 80.0])).depth
    assert torch.equal(twice[0], 2 * base[0])
    assert torch.equal(twice[1], base[1] / 4)


@torch.no_grad()
def test_views_do_not_see_each_other(student):
    both, focal = pictures(), torch.tensor([320.0, 200.0])
    together = student(both, focal).depth
    for i in range(2):
        torch.testing.assert_close(student(both[i : i + 1], focal[i : i + 1]).depth[0], together[i])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31),
    st.floats(0.1, 5.0),
    st.floats(1.5, 1000.0),
    st.integers(1, 80),
    st.floats(0, 20),
)
@torch.no_grad()
def test_bin_centres_are_ordered_and_inside_the_range(seed, near, ratio, bins, spread):
    generator = torch.Generator().manual_seed(seed)
    head = BinHead(4, 6, bins, (near, near * ratio)).eval()
    head.widths.weight.normal_(0, 1, generator=generator)
    centres = head.centres(spread * torch.randn(3, 6, 2, 2, generator=generator))
    assert centres.shape == (3, bins)
    assert (centres >= near * (1 - 1e-4)).all()
    assert (centres <= near * ratio * (1 + 1e-4)).all()
    assert (centres.diff(dim=1) <= 0).all()


@torch.no_grad()
def test_fresh_centres_are_spaced_by_logarithm():
    head = BinHead(4, 6, 64, (0.5, 500.0))
    head.widths.weight.zero_()
    steps = head.centres(torch.zeros(1, 6, 1, 1))[0].log().diff()
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("sharpness", [0.0, 3.0, 60.0])
def test_depth_and_confidence_are_mean_and_spread_of_the_bins(sharpness):
    head = BinHead(4, 6, 8, (0.5, 500.0)).eval()
    head.logits.weight.zero_()
    head.logits.bias.copy_(sharpness * torch.eye(8)[4])
    found = head(torch.zeros(1, 4, 2, 2), torch.zeros(1, 6, 1, 1))
    weights = np.exp(sharpness * np.eye(8)[4])
    weights /= weights.sum()
    centres = found.centres[0].double().numpy()
    mean = (weights * centres).sum()
    variance = (weights * (centres - mean) ** 2).sum()
    np.testing.assert_allclose(found.depth.numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(found.confidence.numpy(), 1 / (1 + variance / mean**2), rtol=1e-4)


@torch.no_grad()
def test_imagenet_weights_mean_the_same_in_our_scaling():
    generator = torch.Generator().manual_seed(1)
    reference = ResNetEncoder(64).eval()
    reference.bn1.running_mean.normal_(0, 0.5, generator=generator)
    reference.bn1.running_var.uniform_(0.5, 2, generator=generator)
    reference.bn1.weight.uniform_(0.5, 1.5, generator=generator)
    reference.bn1.bias.normal_(0, 0.2, generator=generator)
    weights = {**reference.state_dict(), "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    kept = weights["conv1.weight"].clone()
    ours = ResNetEncoder(64).eval()
    ours.load_imagenet(weights)
    assert torch.equal(weights["conv1.weight"], kept), "the given weights are left alone"
    x = pictures(1, 64, 64, seed=2)
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    theirs = reference.bn1(functional.conv2d((x / 255 - mean) / std, kept, stride=2, padding=3))
    stem = ours.bn1(ours.conv1((x - 128) / 64))
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(stem[inside], theirs[inside], rtol=1e-4, atol=1e-4)
    for name, value in ours.state_dict().items():
        if name not in ("conv1.weight", "bn1.running_mean"):
            assert torch.equal(value, reference.state_dict()[name])


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"bins": 0},
        {"decoder": (8, 8, 0, 8)},
        {"depth_range": (5.0, 5.0)},
        {"depth_range": (0.0, 5.0)},
        {"depth_range": (1.0, float("inf"))},
        {"depth_range": (1.0, float("nan"))},
        {"focal": 0.0},
    ],
)
def test_impossible_sizes_are_refused(change):
    with pytest.raises(InputError, match="cannot have these sizes"):
        StudentConfig(**{"name": "x", "width": 4, "decoder": (8, 8, 8, 8), **change})


def test_a_config_survives_json():
    assert StudentConfig.from_json(SMALL.to_json(), where="f") == SMALL
