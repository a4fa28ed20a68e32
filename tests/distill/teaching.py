"""Small frame sets, a student and a made-up teacher, for tests of the methods."""

from __future__ import annotations

import numpy as np
import torch

from fsmde_edge.datasets.synthetic.rig import random_rig
from fsmde_edge.distill.augment import SKY
from fsmde_edge.distill.batch import SetBatch, TeacherViews, alone
from fsmde_edge.distill.methods.base import Step
from fsmde_edge.student.config import StudentConfig
from fsmde_edge.student.network import Student

HEIGHT, WIDTH = 64, 96
CHANNELS = 7
"""Of the teacher's features."""


def ddad_like(seed=0):
    """A six-camera rig at the pictures' size."""
    return random_rig(np.random.default_rng(seed), "test", WIDTH, HEIGHT)


def geometry(rig, sets=1, dtype=torch.float64):
    """Intrinsics and extrinsics [B, V, ...] of sets of one rig."""
    parts = ([c.intrinsics for c in rig.cameras], [c.camera_to_vehicle for c in rig.cameras])
    return tuple(torch.tensor(np.stack(p), dtype=dtype).expand(sets, -1, -1, -1).clone() for p in parts)


def set_batch(sets=2, seed=0, dtype=torch.float64, rig=None):
    """Random pictures, sparse ground truth with sky above, an own car in two views."""
    generator = torch.Generator().manual_seed(seed)
    rig = rig or ddad_like()
    shape = (sets, len(rig), HEIGHT, WIDTH)
    pictures = torch.rand(*shape[:2], 3, *shape[2:], generator=generator, dtype=dtype) * 255
    depth = torch.exp(torch.rand(shape, generator=generator, dtype=dtype) * 4)
    there = torch.rand(shape, generator=generator) < 0.1
    truth = torch.where(there, depth, 0.0)
    truth[..., :8, :] = SKY
    world = torch.ones(shape, dtype=torch.bool)
    world[:, 2:4, 48:, 20:70] = False
    return SetBatch(pictures, truth, world, *geometry(rig, sets, dtype))


def teacher_views(batch, seed=1, channels=CHANNELS):
    """A teacher that says something else of every view, at sizes of its own."""
    generator = torch.Generator().manual_seed(seed)
    shape, dtype = batch.truth.shape[:2], batch.truth.dtype
    disparity = torch.rand(*shape, 56, 84, generator=generator, dtype=dtype) + 0.1
    features = torch.randn(*shape, channels, 5, 7, generator=generator, dtype=dtype)
    return TeacherViews(disparity, features)


def tiny_student(dtype=torch.float64, bins=8, frozen=True):
    """A seeded student, its batch-norm statistics frozen unless told otherwise."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        student = Student(StudentConfig(name="mini", width=8, decoder=(16, 12, 12, 8), bins=bins))
    return student.to(dtype).train(not frozen)


def step_of(student, batch, teacher, total=alone):
    """What the trainer hands to a method."""
    features = student.features(batch.pictures.flatten(0, 1))
    prediction = student.predict(features, batch.focal.flatten())
    return Step(
        batch=batch,
        features=features,
        prediction=prediction,
        head=student.head,
        f0=student.config.focal,
        teacher=teacher,
        total=total,
    )


def part_of(batch, index):
    """Some sets of a batch, or of what a teacher says of it."""
    return type(batch)(*(part[index] for part in batch))


def trained_by(loss, student):
    """Names of the student's parameters that a loss reaches, and the groups that they make up."""
    parameters = dict(student.named_parameters())
    gradients = torch.autograd.grad(loss, parameters.values(), allow_unused=True, retain_graph=True)
    reached = {n for n, g in zip(parameters, gradients, strict=True) if g is not None and bool(g.any())}
    return {".".join(name.split(".")[: 2 if name.startswith("head") else 1]) for name in reached}


PROBABILITIES = {"head.refine", "head.logits"}
CENTRES = {"head.hidden", "head.widths"}
