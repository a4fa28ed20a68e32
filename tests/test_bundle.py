from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from fsmde_edge.bundle import (
    MANIFEST,
    SCHEMA,
    Golden,
    Manifest,
    canonical_json,
    new_bundle,
    open_bundle,
    seal,
    sha256_of,
)
from fsmde_edge.errors import BundleError, OutputError
from fsmde_edge.rig import Camera, VirtualPinhole

FILES = (
    "golden/depth.npz",
    "golden/inputs.npz",
    "golden/preprocess.json",
    "golden/preprocess.npz",
    "model.fp32.onnx",
    "plan.json",
)


def view(name="a"):
    k = np.array([[50.0, 0, 40], [0, 50, 24], [0, 0, 1]])
    made = Camera(name=name, width=80, height=48, intrinsics=k, camera_to_vehicle=np.eye(4))
    return VirtualPinhole.of(made, 80, 48)


def manifest(**change):
    values = {
        "created": "2026-01-01T00:00:00+00:00",
        "version": "0",
        "precision": "fp32",
        "models": {"fp32": "model.fp32.onnx", "fp16": None, "int8": None, "int8-fp16": None},
        "views": (view("a"), view("b")),
        "kind": "metric",
        "focal": 320.0,
        "target": "cpu",
        "source": {"checkpoint": "x", "made": {"seed": 1}},
        "notices": ("a licence",),
    }
    return Manifest(**{**values, **change})


def golden():
    rng = np.random.default_rng(0)
    return Golden(
        images=rng.integers(0, 255, (2, 48, 80, 3), dtype=np.uint8),
        focal=np.array([1, 2], dtype=np.float32),
        depth={"fp32": rng.random((2, 48, 80), dtype=np.float32)},
        pictures=(rng.integers(0, 255, (5, 7, 3), dtype=np.uint8),),
        prepared=(rng.integers(0, 255, (2, 3, 3), dtype=np.uint8),),
        cameras=({"lens": "none", "intrinsics": [[1.0]]},),
    )


def fill(folder: Path, what: Manifest | None = None) -> str:
    (folder / "model.fp32.onnx").write_bytes(b"model" * 100)
    (folder / "plan.json").write_bytes(b"{}")
    (folder / "reports").mkdir()
    (folder / "reports/gate.html").write_bytes(b"<html>")
    golden().save(folder / "golden")
    return seal(folder, what or manifest())


@pytest.fixture
def bundle(tmp_path) -> Path:
    with new_bundle(tmp_path / "bundle", force=False) as folder:
        fill(folder)
    return tmp_path / "bundle"


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def reseal(root: Path, **change) -> None:
    """Change the manifest and make its own hash right again, as an attacker or a newer version would."""
    import hashlib

    values = json.loads((root / MANIFEST).read_text())
    del values["self_sha256"]
    values |= change
    values["self_sha256"] = hashlib.sha256(canonical_json(values)).hexdigest()
    (root / MANIFEST).write_text(json.dumps(values))


def test_what_was_sealed_is_opened(bundle):
    opened = open_bundle(bundle)
    assert opened.manifest == manifest()
    assert opened.manifest.cameras == ("a", "b")
    assert opened.manifest.size == (48, 80)
    assert tuple(opened.files) == FILES
    assert opened.model("fp32") == bundle / "model.fp32.onnx"
    assert opened.gate_passed
    kept = opened.golden()
    np.testing.assert_array_equal(kept.images, golden().images)
    np.testing.assert_array_equal(kept.depth["fp32"], golden().depth["fp32"])
    np.testing.assert_array_equal(kept.prepared[0], golden().prepared[0])
    assert kept.cameras == golden().cameras


def test_the_hash_is_the_manifests_own_and_follows_the_content(tmp_path):
    hashes = set()
    for number, what in enumerate((manifest(), manifest(), manifest(target="orin"))):
        (tmp_path / str(number)).mkdir()
        hashes.add(fill(tmp_path / str(number), what))
        assert open_bundle(tmp_path / str(number)).hash in hashes
    assert len(hashes) == 2


def test_equal_bundles_have_equal_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name)
    for file in (*FILES, MANIFEST):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("file", [*FILES, MANIFEST])
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_one_flipped_byte_is_found_and_its_file_named(bundle, file, place):
    path = bundle / file
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(bundle, file):
    (bundle / file).unlink()
    with pytest.raises(BundleError, match="is missing from the bundle") as caught:
        open_bundle(bundle)
    assert caught.value.where == str(bundle / file)


def test_reports_are_for_people_and_not_hashed(bundle):
    shutil.rmtree(bundle / "reports")
    open_bundle(bundle)


def test_a_newer_schema_says_to_update(bundle):
    reseal(bundle, schema=SCHEMA + 1)
    with pytest.raises(BundleError, match=r"newer fsmde-edge .*pip install -U"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "golden/../../outside"])
def test_a_file_outside_the_bundle_is_never_trusted(bundle, name):
    (bundle.parent / "outside").write_bytes(b"x")
    digest = sha256_of(bundle.parent / "outside")
    reseal(bundle, files={name: digest})
    with pytest.raises(BundleError):
        open_bundle(bundle)


def test_a_link_out_of_the_bundle_is_not_followed(bundle):
    outside = bundle.parent / "outside"
    shutil.move(bundle / "plan.json", outside)
    (bundle / "plan.json").symlink_to(outside)
    with pytest.raises(BundleError, match=r"plan\.json"):
        open_bundle(bundle)


@pytest.mark.parametrize(
    "model", ["../outside", "/etc/hostname", "golden", "reports/gate.html", "absent.onnx"]
)
def test_a_model_that_is_not_a_sealed_file_is_refused(bundle, model):
    (bundle.parent / "outside").write_bytes(b"x")
    reseal(bundle, models={"fp32": model})
    with pytest.raises(BundleError):
        open_bundle(bundle).model("fp32")


@pytest.mark.parametrize(
    "change",
    [
        {"views": []},
        {"views": [{}]},
        {"views": None},
        {"models": None},
        {"models": {"fp32": 1}},
        {"files": None},
        {"files": ["model.fp32.onnx"]},
        {"files": {"plan.json": 3}},
        {"gate": []},
        {"calibration": 1},
        {"notices": 1},
        {"kind": "inches"},
        {"schema": "new"},
        {"schema": 0},
    ],
)
def test_a_manifest_of_another_form_is_one_line(bundle, change):
    reseal(bundle, **change)
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe", b'{"schema": null}'])
def test_a_manifest_that_is_none_is_one_line(bundle, content):
    (bundle / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        open_bundle(bundle)


def test_what_is_no_bundle_says_so(tmp_path, bundle):
    with pytest.raises(BundleError, match="no such bundle"):
        open_bundle(tmp_path / "absent")
    with pytest.raises(BundleError, match=r"holds no manifest\.json"):
        open_bundle(tmp_path)
    with pytest.raises(BundleError, match="is not a bundle"):
        open_bundle(bundle / "plan.json")
    with pytest.raises(BundleError, match=r"has no int8 model \(it has fp32\).*--precision int8"):
        open_bundle(bundle).model("int8")


def test_force_swaps_a_bundle_whole(bundle):
    (bundle / "stray").write_bytes(b"")
    with pytest.raises(OutputError, match="already exists"), new_bundle(bundle, force=False):
        pytest.fail("the block must not run")
    with new_bundle(bundle, force=True) as folder:
        fill(folder, manifest(target="orin"))
        assert open_bundle(bundle).manifest.target == "cpu"
    assert open_bundle(bundle).manifest.target == "orin"
    assert not (bundle / "stray").exists()
    assert visible(bundle.parent) == ["bundle"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_bundle_is_never_replaced(tmp_path, kind):
    out = tmp_path / "home"
    if kind == "folder":
        out.mkdir()
        (out / "thesis.tex").write_bytes(b"x")
    else:
        out.write_bytes(b"x")
    with pytest.raises(OutputError, match="does not delete it"), new_bundle(out, force=True):
        pytest.fail("the block must not run")
    assert out.exists()


def test_a_bundle_that_was_not_sealed_never_appears(tmp_path):
    with pytest.raises(AssertionError, match="not sealed"), new_bundle(tmp_path / "out", force=False):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("force", [False, True])
def test_kill_nine_leaves_no_half_bundle(tmp_path, bundle, force):
    out = bundle if force else tmp_path / "fresh"
    script = f"""
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_bundle import fill
        from fsmde_edge.bundle import new_bundle
        with new_bundle(Path({str(out)!r}), force={force}) as folder:
            fill(folder)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert visible(tmp_path) == ["bundle"]
    assert open_bundle(bundle).manifest.target == "cpu"
    with new_bundle(out, force=True) as folder:
        fill(folder)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_leaves_nothing(tiny_disk):
    with (
        pytest.raises(OutputError, match="No space left") as caught,
        new_bundle(tiny_disk / "out", force=False) as folder,
    ):
        (folder / "model.fp32.onnx").write_bytes(bytes(1 << 20))
    assert caught.value.exit_code == 3
    assert list(tiny_disk.iterdir()) == []


def test_a_limit_on_file_size_leaves_nothing(tmp_path):
    script = f"""
        import resource
        from pathlib import Path
        from fsmde_edge.bundle import new_bundle
        from fsmde_edge.errors import OutputError
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            with new_bundle(Path({str(tmp_path / "out")!r}), force=False) as folder:
                (folder / "model.fp32.onnx").write_bytes(bytes(5000))
        except OutputError as error:
            print(error)
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert "cannot be written (File too large)" in child.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "int2"},
        {"precision": "int8"},
        {"models": {"fp32": "model.fp32.onnx", "int8": "plan.json"}},
        {"focal": -1.0},
        {"schema": 1.0},
        {"schema": True},
        {"files": {"a" * 5000: "x"}},
        {"files": {"a\0b": "x"}},
        {"files": {"\ud800": "x"}},
        {"gate": {"verdict": "passed"}},
        {"gate": {"verdict": ["passed"], "allow_few": False}},
    ],
)
def test_a_manifest_that_says_nonsense_is_one_line(bundle, change):
    reseal(bundle, **change)
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle)
    assert len(str(caught.value).splitlines()) == 1
    assert str(bundle / MANIFEST) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "b"},
        {"width": 0},
        {"width": -80},
        {"width": 10**9, "height": 10**9},
        {"fx": -1.0},
        {"fx_range": [0, 0]},
        {"fx_range": [2, 1]},
    ],
)
def test_a_view_that_cannot_be_is_refused(bundle, change):
    views = json.loads((bundle / MANIFEST).read_text())["views"]
    views[0] |= change
    reseal(bundle, views=views)
    with pytest.raises(BundleError, match="damaged"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("golden")])
def test_a_bundle_lists_its_golden_files(bundle, name):
    files = json.loads((bundle / MANIFEST).read_text())["files"]
    del files[name]
    reseal(bundle, files=files)
    with pytest.raises(BundleError, match=f"does not list {name}"):
        open_bundle(bundle)


@pytest.mark.parametrize("text", ['{"schema": 1e400}', '{"schema":1,"a":1e400}', "[" * 200_000])
def test_json_that_python_stumbles_over_is_damage(bundle, text):
    (bundle / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match="damaged"):
        open_bundle(bundle)


def test_golden_frames_of_another_size_are_damage(bundle):
    views = json.loads((bundle / MANIFEST).read_text())["views"]
    reseal(bundle, views=[{**view, "width": 96} for view in views])
    with pytest.raises(BundleError, match=r"inputs\.npz: is damaged"):
        open_bundle(bundle).golden()
