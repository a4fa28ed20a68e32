from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import pytest
from dgp_writer import write_dgp


@pytest.fixture(scope="module")
def tool():
    path = Path(__file__).resolve().parents[2] / "tools/draw_lidar.py"
    spec = importlib.util.spec_from_file_location("draw_lidar", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_draws_all_cameras_into_one_picture(tool, tmp_path):
    folder = write_dgp(tmp_path / "tiny")
    assert (
        tool.main([str(folder), "--out", str(tmp_path / "x.png"), "--scene", "scene_b", "--width", "128"])
        == 0
    )
    picture = cv2.imread(str(tmp_path / "x.png"))
    assert picture.shape == (2 * 80, 3 * 128, 3)


def test_a_user_error_is_one_line(tool, tmp_path, capsys):
    assert tool.main([str(tmp_path / "absent"), "--out", str(tmp_path / "x.png")]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_real_pictures(tool, tmp_path, shared_data):
    assert tool.main([str(shared_data / "nuscenes_sample"), "--out", str(tmp_path / "x.png")]) == 0
