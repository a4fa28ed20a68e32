"""A student of ours as a teacher."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.distill.teachers.base import frozen
from fsmde_edge.distill.teachers.load import load_teacher
from fsmde_edge.distill.teachers.own import affine_invariant
from fsmde_edge.distill.teachers.recipe import TeacherRecipe
from fsmde_edge.errors import InputError
from fsmde_edge.student.checkpoint import load_checkpoint, save_checkpoint

HEIGHT, WIDTH = 64, 96
CPU = torch.device("cpu")


def pictures(count=3, height=HEIGHT, width=WIDTH):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 255


def teacher_of(checkpoint, **change):
    return load_teacher(TeacherRecipe(kind="own", source=str(checkpoint), **change), CPU)


@given(st.floats(0.05, 50), st.floats(-5, 5), st.integers(0, 99))
def test_neither_scale_nor_shift_of_disparity_is_seen(scale, shift, seed):
    disparity = torch.rand(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    plain = affine_invariant(disparity)
    torch.testing.assert_close(affine_invariant(scale * disparity + shift), plain)
    torch.testing.assert_close(plain.flatten(1).median(dim=1).values, torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(plain.abs().mean(dim=(1, 2)), torch.ones(2, dtype=torch.float64))
    assert bool((plain.flatten(1).argsort() == disparity.flatten(1).argsort()).all())


def test_each_picture_has_a_scale_of_its_own():
    one, other = torch.rand(2, 4, 4).unbind()
    torch.testing.assert_close(affine_invariant(torch.stack((one, 9 * other))), affine_invariant(
        torch.stack((one, other))
    ))  # fmt: skip


def test_a_flat_picture_has_no_disparity():
    assert torch.equal(affine_invariant(torch.full((1, 4, 4), 0.3)), torch.zeros(1, 4, 4))


def test_it_says_the_inverse_depth_of_its_student_and_what_the_student_sees(small_checkpoint):
    student, _ = load_checkpoint(small_checkpoint)
    said = teacher_of(small_checkpoint)(pictures())
    with torch.no_grad():
        features = student.features(pictures())
        depth = student.predict(features, torch.tensor([50.0, 100.0, 900.0])).depth  # a scale: not seen
    torch.testing.assert_close(said.disparity, affine_invariant(1 / depth), atol=2e-4, rtol=2e-4)
    torch.testing.assert_close(said.features, features.decoder)
    assert said.disparity.dtype == said.features.dtype == torch.float32


def test_it_is_frozen(small_checkpoint):
    teacher = teacher_of(small_checkpoint)
    seen = pictures().requires_grad_()
    assert not any(values.requires_grad for values in teacher(seen))
    assert not teacher.student.training
    assert not any(parameter.requires_grad for parameter in teacher.student.parameters())
    assert teacher.parameters == sum(parameter.numel() for parameter in teacher.student.parameters())
    assert teacher.name == "own-small"


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_it_looks_at_its_own_size_and_answers_at_the_pictures(small_checkpoint, stride):
    said = teacher_of(small_checkpoint, size=(128, 160), feature_stride=stride)(pictures(2, 90, 150))
    assert said.disparity.shape == (2, 90, 150)
    assert said.features.shape == (2, 16, 90 // stride, 150 // stride)


def test_freezing_leaves_a_network_in_eval_mode_and_float32():
    network = frozen(torch.nn.Sequential(torch.nn.Linear(2, 2).half(), torch.nn.Dropout()), CPU)
    assert not any(module.training for module in network.modules())
    assert [(p.dtype, p.requires_grad) for p in network.parameters()] == [(torch.float32, False)] * 2


def test_a_size_changes_what_it_says(small_checkpoint):
    own, larger = teacher_of(small_checkpoint), teacher_of(small_checkpoint, size=(128, 192))
    assert not torch.allclose(own(pictures()).disparity, larger(pictures()).disparity, atol=1e-3)


def test_pictures_that_it_cannot_look_at_are_refused(small_checkpoint):
    with pytest.raises(InputError, match=r"own-small cannot look at pictures of 90x150.*give it a size"):
        teacher_of(small_checkpoint)(pictures(1, 90, 150))


def test_a_checkpoint_that_is_missing_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"absent\.safetensors: no such checkpoint"):
        teacher_of(tmp_path / "absent.safetensors")


def test_its_fingerprint_is_of_all_that_it_says_and_of_nothing_else(small_checkpoint, tmp_path):
    before = teacher_of(small_checkpoint).fingerprint
    student, _ = load_checkpoint(small_checkpoint)
    save_checkpoint(tmp_path / "moved.safetensors", student, made={"by": "another command"})
    assert teacher_of(tmp_path / "moved.safetensors").fingerprint == before
    with torch.no_grad():
        next(iter(student.parameters())).view(-1)[0] += 1e-3
    save_checkpoint(tmp_path / "changed.safetensors", student, made={})
    others = {
        teacher_of(tmp_path / "changed.safetensors").fingerprint,
        teacher_of(small_checkpoint, size=(64, 96)).fingerprint,
        teacher_of(small_checkpoint, size=(96, 64)).fingerprint,
        teacher_of(small_checkpoint, feature_stride=8).fingerprint,
    }
    assert len(others | {before}) == 5
