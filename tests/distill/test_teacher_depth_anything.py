"""Depth Anything as a teacher: a tiny model of its class, saved to a folder, read like the real one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
from torch.nn import functional

from fsmde_edge.distill.teachers.depth_anything import network_size
from fsmde_edge.distill.teachers.load import load_teacher
from fsmde_edge.distill.teachers.recipe import TeacherRecipe
from fsmde_edge.errors import InputError, MissingExtra

pytest.importorskip("transformers", reason="needs the extra teacher")

CPU = torch.device("cpu")
SIZE = (56, 98)


def save_tiny(folder, **change):
    """A Depth Anything of four backbone layers, its weights large enough to see the picture."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    sizes = {
        "reassemble_hidden_size": 32,
        "neck_hidden_sizes": [8, 8, 16, 16],
        "fusion_hidden_size": 12,
        "head_hidden_size": 8,
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = DepthAnythingForDepthEstimation(
            DepthAnythingConfig(backbone_config=backbone, **sizes, **change)
        )
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.01 if "conv3" in name else 0.2)
            if name == "head.conv3.bias":
                torch.nn.init.constant_(parameter, 3.0)
    model.save_pretrained(folder)
    return model.eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a relative model."""
    folder = tmp_path_factory.mktemp("teacher") / "tiny-model"
    save_tiny(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    """A folder to spoil."""
    return shutil.copytree(saved, tmp_path / "copied")


def teacher_of(source, **change):
    return load_teacher(TeacherRecipe(kind="depth-anything", source=str(source), **change), CPU)


def pictures(count=2, height=SIZE[0], width=SIZE[1]):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 255


def seen_by(teacher, given):
    """What reaches the model."""
    seen = []
    hook = teacher.model.register_forward_pre_hook(
        lambda _module, _inputs, named: seen.append(named["pixel_values"]), with_kwargs=True
    )
    teacher(given)
    hook.remove()
    return seen[0]


def test_it_says_what_the_model_says(saved):
    teacher = teacher_of(saved, size=SIZE)
    necks = []
    hook = teacher.model.neck.register_forward_hook(lambda *call: necks.append(call[-1]))
    said = teacher(pictures())
    hook.remove()
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    values = (pictures() / 255 - mean[:, None, None]) / deviation[:, None, None]
    with torch.no_grad():
        expected = teacher.model(pixel_values=values).predicted_depth
    torch.testing.assert_close(said.disparity, expected)
    assert float(said.disparity.std()) > 0.01
    assert said.features.shape == (2, 12, 14, 24)
    assert necks[0][-1].shape == (2, 12, 32, 56)
    down = functional.interpolate(necks[0][-1], (14, 24), mode="bilinear", antialias=True)
    torch.testing.assert_close(said.features, down)
    assert said.disparity.dtype == said.features.dtype == torch.float32


@pytest.mark.parametrize(
    ("picture", "network"),
    [
        ((1216, 1936), (518, 826)),
        ((900, 1600), (518, 924)),
        ((384, 640), (308, 518)),
        ((96, 160), (308, 518)),
        ((518, 518), (518, 518)),
        ((700, 333), (518, 252)),
        ((4, 4000), (14, 518)),
    ],
)
def test_a_picture_is_seen_at_the_published_size(picture, network):
    assert network_size(*picture) == network


def test_without_a_size_the_published_rule_holds_and_the_answer_has_the_pictures_size(saved):
    teacher = teacher_of(saved, feature_stride=8)
    given = pictures(1, 48, 80)
    assert seen_by(teacher, given).shape == (1, 3, 308, 518)
    said = teacher(given)
    assert said.disparity.shape == (1, 48, 80)
    assert said.features.shape == (1, 12, 6, 10)


def test_resized_pictures_stay_within_black_and_white(saved):
    edges = torch.zeros(1, 3, 30, 60)
    edges[..., 30:] = 255
    seen = seen_by(teacher_of(saved, size=SIZE), edges)
    assert seen.shape == (1, 3, *SIZE)
    assert float(seen[:, 0].min()) == pytest.approx(-0.485 / 0.229)
    assert float(seen[:, 2].max()) == pytest.approx((1 - 0.406) / 0.225)


def test_metres_of_a_metric_model_become_disparity(tmp_path):
    model = save_tiny(tmp_path / "metric", depth_estimation_type="metric", max_depth=80)
    teacher = teacher_of(tmp_path / "metric", size=SIZE)
    disparity = teacher(pictures()).disparity
    seen = seen_by(teacher, pictures())
    with torch.no_grad():
        metres = model(pixel_values=seen).predicted_depth
    torch.testing.assert_close(disparity, 1 / metres)


def test_a_metric_model_that_says_nothing_lies_ahead_gives_finite_disparity(tmp_path):
    save_tiny(tmp_path / "metric", depth_estimation_type="metric", max_depth=80)
    teacher = teacher_of(tmp_path / "metric", size=SIZE)
    torch.nn.init.constant_(teacher.model.head.conv3.bias, -1e4)
    torch.testing.assert_close(teacher(pictures()).disparity, torch.full((2, *SIZE), 1 / 0.08))


def test_it_is_frozen_in_float32_and_named_after_its_folder(saved):
    teacher = teacher_of(saved, size=SIZE)
    assert teacher.name == "tiny-model"
    assert not teacher.model.training
    assert {parameter.dtype for parameter in teacher.model.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert not any(values.requires_grad for values in teacher(pictures().requires_grad_()))
    assert teacher.parameters == sum(parameter.numel() for parameter in teacher.model.parameters())


def test_weights_kept_in_half_precision_run_on_a_cpu(saved, tmp_path):
    from transformers import DepthAnythingForDepthEstimation

    DepthAnythingForDepthEstimation.from_pretrained(saved).half().save_pretrained(tmp_path / "half")
    teacher = teacher_of(tmp_path / "half", size=SIZE)
    assert {parameter.dtype for parameter in teacher.model.parameters()} == {torch.float32}
    expected = teacher_of(saved, size=SIZE)(pictures())
    torch.testing.assert_close(teacher(pictures()).disparity, expected.disparity, atol=0.05, rtol=0.01)


# The fingerprint


def test_the_fingerprint_does_not_depend_on_where_the_model_lies(saved, copied):
    assert teacher_of(copied).fingerprint == teacher_of(saved).fingerprint


def change_config(folder, **change):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def change_weights(folder, change):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def nudge(weights):
    weights["head.conv3.bias"] += 1e-3


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: change_weights(folder, nudge),
        lambda folder: change_config(folder, depth_estimation_type="metric"),
        lambda folder: change_config(folder, head_in_index=-2),
    ],
    ids=["weights", "metric", "head"],
)
def test_the_fingerprint_sees_weights_and_config(saved, copied, change):
    change(copied)
    assert teacher_of(copied).fingerprint != teacher_of(saved).fingerprint


def test_the_fingerprint_sees_every_setting(saved):
    found = {
        teacher_of(saved, **change).fingerprint
        for change in ({}, {"size": SIZE}, {"size": SIZE[::-1]}, {"feature_stride": 8})
    }
    assert len(found) == 4


# What cannot be used


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def pickled(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove("config.json"), "copied: holds no config.json; give the folder"),
        (remove("model.safetensors"), "copied: holds no weights; put the model's model.safetensors there"),
        (pickled, "holds pickled weights alone, which can run code"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"garbage" * 9), "cannot be loaded as a"),
        (
            lambda folder: (folder / "config.json").write_text("{"),
            "cannot be loaded as a teacher.*valid JSON",
        ),
        (lambda folder: change_config(folder, model_type="dinov2"), "config says model_type 'dinov2'"),
        (lambda folder: change_config(folder, patch_size=16), "config says patches of 16 pixels"),
        (lambda folder: change_config(folder, fusion_hidden_size=20), "cannot be loaded as a teacher"),
        (
            lambda folder: change_weights(folder, lambda weights: weights.pop("head.conv1.weight")),
            "lacks 1 of the teacher's tensors, head.conv1.weight among them; copy or download it again",
        ),
    ],
    ids=["config", "weights", "pickle", "broken", "json", "class", "patch", "shape", "tensor"],
)
def test_a_folder_that_cannot_be_used_is_one_line(copied, spoil, message, capfd):
    spoil(copied)
    with pytest.raises(InputError, match=message) as caught:
        teacher_of(copied)
    assert str(caught.value).startswith(str(copied))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("source", ["/not/there", "./not/there", "only-a-name", "https://a.b/c"])
def test_what_is_neither_folder_nor_hub_name_asks_no_hub(source):
    with pytest.raises(InputError, match="no such folder, and no hub name"):
        teacher_of(source)


def test_a_missing_package_names_our_extra(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'fsmde-edge\[teacher\]'"):
        teacher_of(saved)


def run_child(script, **environment):
    script = textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path):
    child = run_child(
        """
        import torch
        from fsmde_edge.distill.teachers.load import load_teacher
        from fsmde_edge.distill.teachers.recipe import TeacherRecipe
        from fsmde_edge.errors import InputError
        try:
            load_teacher(TeacherRecipe(kind="depth-anything", source="owner/model"), torch.device("cpu"))
        except InputError as error:
            print(error)
        """,
        HF_HUB_OFFLINE="1",
        HF_HOME=str(tmp_path),
    )
    assert child.returncode == 0, child.stderr
    (line,) = child.stdout.splitlines()
    assert line.startswith("owner/model: cannot be loaded as a teacher (")
    assert line.endswith("download the model on a machine that reaches its hub, and give the folder here")
    assert child.stderr == ""


def test_it_needs_neither_torchvision_nor_pillow_and_says_nothing(saved):
    child = run_child(
        f"""
        import sys
        sys.modules["torchvision"] = sys.modules["PIL"] = None
        import torch
        from fsmde_edge.distill.teachers.load import load_teacher
        from fsmde_edge.distill.teachers.recipe import TeacherRecipe
        assert "transformers" not in sys.modules
        recipe = TeacherRecipe(kind="depth-anything", source={str(saved)!r}, size={SIZE})
        print(load_teacher(recipe, torch.device("cpu"))(torch.zeros(1, 3, 56, 98)).disparity.shape)
        """
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.strip() == "torch.Size([1, 56, 98])"
    assert child.stderr == ""
