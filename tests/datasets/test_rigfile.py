from __future__ import annotations

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fsmde_edge.datasets.rigfile import Plugged, load_plugged, load_rig, save_rig, set_offsets
from fsmde_edge.errors import InputError, OutputError
from fsmde_edge.rig import BrownConrady, Camera, Fisheye, NoDistortion, Rig

FORWARD = np.array([[0, 0, 1, 1.5], [-1, 0, 0, 0.1], [0, -1, 0, 1.6], [0, 0, 0, 1.0]])
BACK = np.array([[0, 0, -1, -0.5], [1, 0, 0, 0], [0, -1, 0, 1.2], [0, 0, 0, 1.0]])
K = np.array([[50.0, 0, 32.5], [0, 51.0, 20.25], [0, 0, 1]])


def camera(name, pose, **extra):
    return Camera(name=name, width=64, height=40, intrinsics=K, camera_to_vehicle=pose, **extra)


@pytest.mark.parametrize(
    "lens",
    [NoDistortion(), BrownConrady(k1=-0.3, k2=0.1, p1=0.01, k6=0.002), Fisheye(k1=0.1, k4=-0.01)],
)
def test_a_saved_rig_loads_as_it_was(tmp_path, lens):
    mask = np.ones((40, 64), bool)
    mask[30:] = False
    rig = Rig.of([camera("back", BACK, distortion=lens), camera("front", FORWARD, ego_mask=mask)])
    save_rig(tmp_path / "rig.yaml", rig)
    loaded = load_rig(tmp_path / "rig.yaml")
    assert loaded.names == ("front", "back")
    for ours, theirs in zip(rig.cameras, loaded.cameras, strict=True):
        np.testing.assert_array_equal(ours.intrinsics, theirs.intrinsics)
        np.testing.assert_array_equal(ours.camera_to_vehicle, theirs.camera_to_vehicle)
        assert ours.distortion == theirs.distortion
        assert (ours.width, ours.height) == (theirs.width, theirs.height)
    np.testing.assert_array_equal(loaded["front"].ego_mask, mask)
    assert loaded["back"].ego_mask is None


@pytest.fixture
def values(tmp_path):
    save_rig(tmp_path / "rig.yaml", Rig.of([camera("front", FORWARD)]))
    return yaml.safe_load((tmp_path / "rig.yaml").read_text())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: v.update(version=2), "has version 2, this program reads version 1"),
        (lambda v: v.update(extra=1), "the rig has unknown keys: extra"),
        (lambda v: v["cameras"][0].update(fxx=1), "camera front has unknown keys: fxx"),
        (lambda v: v["cameras"][0].pop("fx"), "camera front misses the keys fx"),
        (lambda v: v["cameras"][0].update(fx="wide"), "is not laid out as expected"),
        (lambda v: v["cameras"][0].update(fx=-1), "focal length that is not positive"),
        (lambda v: v["cameras"][0].update(camera_to_vehicle=[[1, 2]]), "finite 4x4 matrix"),
        (lambda v: v["cameras"][0].update(distortion={"model": "ideal"}), "unknown distortion model 'ideal'"),
        (lambda v: v["cameras"][0].update(distortion={"model": ["a"]}), "rig.yaml"),
        (
            lambda v: v["cameras"][0].update(distortion={"model": "fisheye", "coefficients": [0] * 5}),
            "5 coefficients, fisheye has 4",
        ),
        (lambda v: v["cameras"][0].update(ego_mask="../mask.png"), "outside its folder"),
        (lambda v: v["cameras"][0].update(ego_mask="mask.png"), "picture is missing"),
        (lambda v: v["cameras"].append(v["cameras"][0]), "names a camera twice"),
        (lambda v: v.update(cameras=[]), "a rig without cameras"),
        (lambda v: v.update(cameras=["front"]), "is not a mapping"),
    ],
)
def test_a_wrong_rig_file_is_one_clear_line(tmp_path, values, change, says):
    change(values)
    path = tmp_path / "rig.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError) as caught:
        load_rig(path)
    assert says in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- 1", "{", "a: !!python/object:os.system {}", "\x00"])
def test_what_is_no_yaml_mapping_is_refused(tmp_path, text):
    (tmp_path / "rig.yaml").write_text(text)
    with pytest.raises(InputError, match=r"rig\.yaml"):
        load_rig(tmp_path / "rig.yaml")


def test_a_rig_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save_rig(tmp_path / "file/rig.yaml", Rig.of([camera("front", FORWARD)]))


def test_which_device_a_camera_is_may_be_said(tmp_path, values):
    path = tmp_path / "rig.yaml"
    assert load_plugged(path) == {"front": Plugged(None, 0.0)}
    values["cameras"][0] |= {"device": "/dev/video3", "offset_ms": -3.5}
    path.write_text(yaml.safe_dump(values))
    assert load_plugged(path) == {"front": Plugged("/dev/video3", -3.5)}
    assert load_rig(path).names == ("front",)


@pytest.mark.parametrize("offset", ["soon", 1e9, ".nan"])
def test_an_offset_that_is_none_is_refused(tmp_path, values, offset):
    path = tmp_path / "rig.yaml"
    values["cameras"][0]["offset_ms"] = offset
    path.write_text(yaml.safe_dump(values).replace("'.nan'", ".nan"))
    with pytest.raises(InputError, match=r"rig\.yaml"):
        load_plugged(path)


def test_how_cameras_are_plugged_in_is_kept_by_who_saves_it(tmp_path):
    rig = Rig.of([camera("front", FORWARD), camera("back", BACK)])
    plugged = {"front": Plugged("/dev/video3", -3.5), "back": Plugged(None, 0.0)}
    save_rig(tmp_path / "rig.yaml", rig, plugged)
    assert load_plugged(tmp_path / "rig.yaml") == plugged
    assert "offset_ms" not in yaml.safe_load((tmp_path / "rig.yaml").read_text())["cameras"][1]


BY_HAND = """\
# our van
version: 1   # of the format
cameras:
  - fx: 50.0
    name: front   # looks ahead
    {width: W, height: H}
    fy: 51
    cx: 32.5
    cy: 20.25
    device: /dev/video0
    camera_to_vehicle: [[0, 0, 1, 1.5], [-1, 0, 0, 0.1], [0, -1, 0, 1.6], [0, 0, 0, 1.0]]
  - {name: "back", width: 64, height: 40, fx: 50, fy: 51, cx: 32, cy: 20,
     camera_to_vehicle: [[0, 0, -1, -0.5], [1, 0, 0, 0], [0, -1, 0, 1.2], [0, 0, 0, 1]]}
  - name: left
    offset_ms: 1e3   # guessed
    width: 64
    height: 40
    fx: 50
    fy: 51
    cx: 32
    cy: 20
    camera_to_vehicle: [[1, 0, 0, 0], [0, 0, 1, 0.5], [0, -1, 0, 1.2], [0, 0, 0, 1]]
""".replace("{width: W, height: H}", "width: 64\n    height: 40")


def test_offsets_are_written_into_a_file_and_every_other_byte_stays(tmp_path):
    path = tmp_path / "rig.yaml"
    path.write_text(BY_HAND)
    set_offsets(path, {"front": 0.25, "back": -3.5, "left": 7.0})
    expected = (
        BY_HAND.replace("# looks ahead\n", "# looks ahead\n    offset_ms: 0.25\n")
        .replace('{name: "back",', '{name: "back", offset_ms: -3.5,')
        .replace("offset_ms: 1e3 ", "offset_ms: 7.0 ")
    )
    assert path.read_text() == expected
    offsets = {name: each.offset_ms for name, each in load_plugged(path).items()}
    assert offsets == {"front": 0.25, "back": -3.5, "left": 7.0}
    set_offsets(path, {"front": 0.5})
    assert path.read_text() == expected.replace("offset_ms: 0.25", "offset_ms: 0.5")


@given(st.floats(-9999, 9999), st.booleans())
def test_any_offset_is_read_as_it_was_written(tmp_path_factory, offset, there):
    path = tmp_path_factory.mktemp("rig") / "rig.yaml"
    save_rig(path, Rig.of([camera("front", FORWARD)]), {"front": Plugged(None, 1.0 if there else 0.0)})
    set_offsets(path, {"front": offset})
    assert load_plugged(path)["front"].offset_ms == pytest.approx(offset, abs=1e-6)
    assert load_rig(path).names == ("front",)


def test_a_file_that_cannot_be_edited_in_place_is_left_alone(tmp_path):
    path = tmp_path / "rig.yaml"
    path.write_text(
        BY_HAND.replace("offset_ms: 1e3", "offset_ms: &shared 1.0").replace("fx: 50\n", "fx: *shared\n")
    )
    before = path.read_text()
    with pytest.raises(InputError, match=r"cannot be edited in place.*left offset_ms: 7"):
        set_offsets(path, {"left": 7.0})
    assert path.read_text() == before
