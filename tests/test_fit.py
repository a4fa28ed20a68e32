from __future__ import annotations

import math

import numpy as np
import pytest

from fsmde_edge.bundle import Manifest
from fsmde_edge.errors import InputError
from fsmde_edge.fit import fit_rig, fitted_pinholes, world_mask
from fsmde_edge.frames import Frame, FrameSet, Stamp
from fsmde_edge.preprocess import own_pinholes, preprocess
from fsmde_edge.rig import Camera, Fisheye, NoDistortion, Rig, VirtualPinhole
from fsmde_edge.views import views_for

WIDTH, HEIGHT = 64, 40


def camera(hfov, *, lens=None, size=(192, 120), name="real", mask=None):
    width, height = size
    fx = width / 2 / math.tan(math.radians(hfov / 2))
    k = np.array([[fx, 0, width / 2], [0, fx, height / 2], [0, 0, 1]])
    pose = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1.0]])
    return Camera(
        name=name,
        width=width,
        height=height,
        intrinsics=k,
        camera_to_vehicle=pose,
        distortion=lens or NoDistortion(),
        ego_mask=mask,
    )


def bundle(hfov=85.0):
    """The manifest of a bundle with one view."""
    rig = Rig.of([camera(hfov, name="view")])
    return Manifest(
        created="",
        version="",
        precision="fp32",
        models={"fp32": "model.fp32.onnx"},
        views=own_pinholes(rig, WIDTH, HEIGHT),
        kind="metric",
        focal=320.0,
        target="cpu",
        source={},
    )


def test_the_same_camera_fits_and_loses_nothing():
    (fit,) = fit_rig(Rig.of([camera(85.0)]), bundle())
    assert fit.fits
    assert fit.ratio == pytest.approx(1)
    assert (fit.camera_hfov, fit.view_hfov) == (pytest.approx(85), pytest.approx(85))
    assert (fit.lost, fit.empty) == (0, 0)


def test_a_wide_camera_loses_what_the_view_does_not_show():
    (fit,) = fit_rig(Rig.of([camera(120.0)]), bundle())
    assert fit.fits
    assert fit.camera_hfov == pytest.approx(120)
    kept = math.tan(math.radians(42.5)) / math.tan(math.radians(60))  # each way
    assert fit.ratio == pytest.approx(kept)
    assert fit.lost == pytest.approx(1 - kept**2, abs=0.03)
    assert fit.empty == 0


def test_a_narrow_camera_leaves_the_view_empty_at_its_edges():
    (fit,) = fit_rig(Rig.of([camera(60.0)]), bundle())
    filled = math.tan(math.radians(30)) / math.tan(math.radians(42.5))
    assert fit.lost == 0
    assert fit.empty == pytest.approx(1 - filled**2, abs=0.04)


def test_a_lens_beyond_half_a_turn_is_told_and_what_is_beyond_counts_as_lost():
    wide = camera(90.0, lens=Fisheye(), size=(384, 240))  # ideal fx 192: the edge lies at 192 / 192 rad = 57°
    (fit,) = fit_rig(Rig.of([wide]), bundle())
    assert fit.camera_hfov == pytest.approx(2 * math.degrees(1.0), abs=0.01)
    assert 0.2 < fit.lost < 0.7
    far = camera(55.0, lens=Fisheye(), size=(1200, 400))
    assert fit_rig(Rig.of([far]), bundle())[0].camera_hfov < 180
    k = np.array([[300.0, 0, 600], [0, 300.0, 200], [0, 0, 1]])
    whole = Camera(
        name="a", width=1200, height=400, intrinsics=k, camera_to_vehicle=np.eye(4), distortion=Fisheye()
    )
    assert fit_rig(Rig.of([whole]), bundle())[0].camera_hfov == math.inf


@pytest.mark.parametrize("hfov", [20.0, 150.0])
def test_outside_the_allowed_range_it_is_refused(hfov):
    rig = Rig.of([camera(hfov)])
    assert not fit_rig(rig, bundle())[0].fits
    with pytest.raises(InputError, match="camera real has a focal length of"):
        fitted_pinholes(rig, bundle())
    with pytest.raises(InputError, match="camera real has a focal length of"):
        views_for(rig, bundle(), fit=True)


def test_another_number_of_cameras_is_refused():
    rig = Rig.of([camera(85.0), camera(84.0, name="other")])
    with pytest.raises(InputError, match=r"the bundle has 1 views \(view\), the source 2 cameras"):
        fit_rig(rig, bundle())


@pytest.mark.parametrize("how", [None, "definition"])
def test_a_fitted_rig_is_seen_through_the_bundles_view(how):
    real = camera(120.0)
    image = np.random.default_rng(0).integers(0, 256, (120, 192, 3), dtype=np.uint8)
    views = views_for(Rig.of([real]), bundle(), how=how, fit=True)
    frames = FrameSet(frames=(Frame(camera="real", image=image, stamp=Stamp(0)),))
    images, focal = views.prepare(frames)
    view = bundle().views[0]
    assert focal[0] == pytest.approx(view.fx)
    np.testing.assert_array_equal(images[0], preprocess(image, real, view))
    assert (images[0] != preprocess(image, real, VirtualPinhole.of(real, WIDTH, HEIGHT))).any()


def test_the_world_is_where_the_camera_looks_and_its_own_car_is_not():
    mask = np.ones((120, 192), bool)
    mask[90:] = False
    narrow = camera(60.0, mask=mask)
    world = world_mask(narrow, bundle().views[0])
    lit = preprocess(np.full((120, 192, 3), 255, np.uint8), narrow, bundle().views[0])[..., 0] > 127
    assert (world <= lit).all()
    assert lit[-12, WIDTH // 2]
    assert not world[-12, WIDTH // 2]  # the own car
    assert world[HEIGHT // 2, WIDTH // 2]
    assert not world[:, 0].any()


def test_a_picture_of_another_size_is_refused():
    views = views_for(Rig.of([camera(85.0)]), bundle(), how="definition")
    wrong = Frame(camera="real", image=np.zeros((192, 120, 3), np.uint8), stamp=Stamp(0))
    with pytest.raises(InputError, match="is 120x192, its calibration is for 192x120"):
        views.prepare(FrameSet(frames=(wrong,)))
