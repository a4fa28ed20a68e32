import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmde_edge.datasets import open_dataset
from fsmde_edge.datasets.poses import pose as pose_of
from fsmde_edge.datasets.synthetic import SyntheticStreets, write_dgp
from fsmde_edge.datasets.synthetic.rig import camera_rotation
from fsmde_edge.datasets.synthetic.writer import _quaternion
from fsmde_edge.errors import OutputError


def test_what_is_written_reads_as_what_was_rendered(tmp_path):
    streets = SyntheticStreets("test", scenes=2, samples_per_scene=2, width=128, height=80, ego_share=1.0)
    path = write_dgp(tmp_path / "streets", streets)
    assert path.name == "scene_dataset_v1.0.json"
    read = open_dataset(path.parent)
    assert len(read) == len(streets)
    for index in range(len(streets)):
        made, found = streets[index], read[index]
        assert made.frame_set.stamps_ns == found.frame_set.stamps_ns
        for ours, theirs in zip(made.frame_set.frames, found.frame_set.frames, strict=True):
            assert ours.camera == theirs.camera
            assert (ours.image == theirs.image).all()
        for ours, theirs in zip(made.rig.cameras, found.rig.cameras, strict=True):
            assert np.allclose(ours.camera_to_vehicle, theirs.camera_to_vehicle, atol=1e-9)
            assert (ours.intrinsics == theirs.intrinsics).all()
            assert (ours.ego_mask == theirs.ego_mask).all()
        for name, depth in made.depth.items():
            same = np.isclose(depth, found.depth[name], atol=1e-4)
            assert same.mean() > 0.9995  # a point on a pixel's border may round to either side


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(OutputError, match="not empty"):
        write_dgp(tmp_path, SyntheticStreets("test", scenes=1, width=64, height=40))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_index_is_written_last(tmp_path, monkeypatch):
    streets = SyntheticStreets("test", scenes=2, width=64, height=40)
    render = SyntheticStreets.__getitem__

    def breaks(self, index):
        if index == 1:
            raise KeyboardInterrupt
        return render(self, index)

    monkeypatch.setattr(SyntheticStreets, "__getitem__", breaks)
    with pytest.raises(KeyboardInterrupt):
        write_dgp(tmp_path / "streets", streets)
    assert not list((tmp_path / "streets").glob("*.json"))
    assert not list((tmp_path / "streets").rglob(".tmp*"))


@settings(max_examples=100, deadline=None)
@given(st.floats(-180, 180), st.floats(-90, 90), st.floats(-180, 180))
def test_quaternions_give_the_rotation_back(azimuth, pitch, roll):
    rotation = camera_rotation(azimuth, pitch, roll)
    assert np.allclose(pose_of(_quaternion(rotation), (0, 0, 0))[:3, :3], rotation, atol=1e-9)


def test_an_empty_folder_is_filled_and_a_failure_leaves_it_empty(tmp_path, monkeypatch):
    streets, out = (
        SyntheticStreets("test", scenes=1, samples_per_scene=1, width=64, height=40),
        tmp_path / "out",
    )
    out.mkdir()
    monkeypatch.setattr("fsmde_edge.datasets.synthetic.writer._write_masks", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_dgp(out, streets)
    assert list(tmp_path.iterdir()) == [out]
    assert list(out.iterdir()) == []
    monkeypatch.undo()
    assert write_dgp(out, streets).is_file()
