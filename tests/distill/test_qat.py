"""Quantisation-aware training computes what the bundle's INT8 network computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_sets import made_course, made_recipe, made_store

from fsmde_edge.bundle import open_bundle
from fsmde_edge.cli.main import main
from fsmde_edge.compiler.plan import Plan
from fsmde_edge.compiler.quantiser import scale_of
from fsmde_edge.distill.qat import FakeQuantisation, _scales_of, plain, read_plan
from fsmde_edge.distill.recipe import QuantiseRecipe
from fsmde_edge.distill.trainer import train
from fsmde_edge.errors import InputError
from fsmde_edge.student import config
from fsmde_edge.student.checkpoint import load_checkpoint, save_checkpoint
from fsmde_edge.student.config import StudentConfig
from fsmde_edge.student.network import Student

SIZE = (64, 96)
RECIPE = f"""\
version: 1
size: [{SIZE[0]}, {SIZE[1]}]
data: [{{split: train, count: 2}}]
gate: [{{split: dev, count: 1}}]
"""


@pytest.fixture(scope="module")
def mini():
    with pytest.MonkeyPatch.context() as patch:
        small = StudentConfig(name="mini", width=4, decoder=(8, 8, 8, 8), bins=8)
        patch.setitem(config.STUDENTS, "mini", small)
        yield small


@pytest.fixture(scope="module")
def built(tmp_path_factory, mini):
    """A checkpoint with lively norms, and the bundle that `build` makes of it, all INT8."""
    folder = tmp_path_factory.mktemp("qat")
    torch.manual_seed(0)
    student = Student(mini)
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.3, 0.5)
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    with torch.no_grad():
        student.head.logits.weight.mul_(30)  # untrained, it says the same everywhere, whatever is rounded
    save_checkpoint(folder / "start.safetensors", student.eval(), made={})
    (folder / "recipe.yaml").write_text(RECIPE)
    command = ("build", "--precision", "int8", "--checkpoint", str(folder / "start.safetensors"))
    options = ("--calib", str(folder / "recipe.yaml"), "--out", str(folder / "bundle"), "--force-int8", "*")
    assert main([*command, *options, "--allow-few"]) in (0, 4)
    return folder


def loaded(built):
    return load_checkpoint(built / "start.safetensors")[0].eval()


def plan_of(built):
    return read_plan(built / "bundle", built / "start.safetensors")


def test_the_arithmetic_is_that_of_the_bundles_int8_model(built):
    import onnxruntime

    bundle, student = open_bundle(built / "bundle"), loaded(built)
    quantisation = FakeQuantisation.of(student, plan_of(built))
    images = np.random.default_rng(1).integers(0, 256, (6, *SIZE, 3), dtype=np.uint8)
    focal = np.full(6, 60.0, dtype=np.float32)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(str(bundle.model("int8")), options)
    (expected,) = session.run(["depth"], {"images": images, "focal": focal})
    pictures = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        in_float = student(pictures, torch.from_numpy(focal)).depth.numpy()
        with quantisation.on():
            got = student(pictures, torch.from_numpy(focal)).depth.numpy()
        assert np.array_equal(student(pictures, torch.from_numpy(focal)).depth.numpy(), in_float)
    assert np.abs(in_float / expected - 1).mean() > 1e-4
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_scales_are_the_compilers():
    limits = torch.tensor([0.0, 1e-9, 0.37, 1.0, 12.7, 127 * 0.1, 3e4, 1e9], dtype=torch.float64)
    assert _scales_of(limits).tolist() == [scale_of(float(limit)) for limit in limits]


def test_every_quantised_tensor_has_its_place(built):
    student, plan = loaded(built), plan_of(built)
    quantisation = FakeQuantisation.of(student, plan)
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in student.modules())
    assert hooks == sum(a.int8 for a in plan.activations)
    assert quantisation.active is False


def test_a_plan_of_another_network_is_refused(built, mini):
    plan = plan_of(built)
    text = plan.to_json().replace("student.decoder.bottom.0", "student.decoder.top.0")
    with pytest.raises(InputError, match=r"the plan quantises student\.decoder\.top\.0"):
        FakeQuantisation.of(Student(mini), Plan.from_json(text))


def test_a_bundle_of_another_checkpoint_is_refused(built, tmp_path, mini):
    save_checkpoint(tmp_path / "other.safetensors", Student(mini).eval(), made={})
    with pytest.raises(InputError, match=r"is not built from .*other.*--force-int8"):
        read_plan(built / "bundle", tmp_path / "other.safetensors")


def test_training_brings_the_int8_depth_to_the_float_depth(built, tmp_path, mini):
    recipe = made_recipe(
        start=str(built / "start.safetensors"),
        freeze_norm=True,
        mixed_precision=False,
        quantise=QuantiseRecipe(bundle=str(built / "bundle"), agreement=100.0),
        steps=40,
        learning_rate=3e-4,
    )
    lines = []
    run = train(made_course(recipe, made_store()), tmp_path, report=lines.append, save_every=10)
    before, after = loaded(built).state_dict(), run.averaged.state_dict()
    for name in before:
        if "running" in name:  # the plan is of the network as it was
            assert torch.equal(before[name], after[name]), name
    agreement = [float(line.split("agreement ")[1].split(",")[0].rstrip(")")) for line in lines]
    assert agreement[-1] < 0.9 * agreement[0], agreement
    assert plain(run.student).keys() == run.averaged.state_dict().keys()


def test_a_run_that_was_stopped_goes_on_exactly(built, tmp_path, mini):
    recipe = made_recipe(
        start=str(built / "start.safetensors"),
        freeze_norm=True,
        mixed_precision=False,
        quantise=QuantiseRecipe(bundle=str(built / "bundle")),
    )

    def stop(line):
        if line.startswith("step 3/"):
            raise KeyboardInterrupt

    whole = train(made_course(recipe), tmp_path / "whole", report=lambda _: None, save_every=3)
    with pytest.raises(KeyboardInterrupt):
        train(made_course(recipe), tmp_path / "parts", report=stop, save_every=3)
    parts = train(made_course(recipe), tmp_path / "parts", report=lambda _: None, save_every=3)
    for key, value in whole.averaged.state_dict().items():
        assert torch.equal(parts.averaged.state_dict()[key], value), key
