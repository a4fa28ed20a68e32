"""What a bench feeds: pictures packed as drivers pack them, and the same depth as golden frames give."""

import numpy as np
import pytest

from fsmde_edge.benchmark.pictures import CODES, SETS, golden_input, pack, source_input
from fsmde_edge.bundle import open_bundle
from fsmde_edge.capture import open_source
from fsmde_edge.cli.bench import CODES as OFFERED
from fsmde_edge.preprocessing.raw import RawLayout, unpack
from fsmde_edge.views import views_for


@pytest.mark.parametrize("code", CODES)
def test_packing_is_undone_by_unpacking(code):
    soft = np.linspace(0, 1, 8 * 16).reshape(8, 16, 1) * (200, 60, 30) + (20, 90, 120)
    image = np.repeat(np.repeat(soft[::2, ::2], 2, axis=0), 2, axis=1).astype(np.uint8)  # chroma in pairs
    if code == "GREY":
        image[...] = image[..., :1]
    layout = RawLayout(code=code, width=16, height=8)
    packed = pack(image, layout)
    assert (packed.dtype, packed.shape) == (np.uint8, (layout.size,))
    assert np.abs(unpack(packed, layout).astype(int) - image).max() <= 2


def test_every_format_that_is_offered_can_be_packed():
    assert OFFERED == CODES


def test_golden_frames_come_back_through_the_pipeline(small_bundle):
    bundle = open_bundle(small_bundle)
    fed = golden_input(bundle, code="UYVY", size=(640, 384))
    views = views_for(fed.rig, bundle.manifest, how="auto", layouts=fed.layouts)
    images, focal = views.prepare(fed.frame_set(7, 123))
    golden = bundle.golden()
    assert np.abs(images.astype(int) - golden.images).mean() < 6  # enlarged, chroma shared, shrunk again
    assert np.allclose(focal, [view.fx for view in bundle.manifest.views], rtol=1e-6)


def test_sets_lie_in_memory_of_their_own_and_take_turns(small_bundle):
    fed = golden_input(open_bundle(small_bundle), code="NV12", size=(64, 32))
    assert len({id(picture) for pictures in fed.sets for picture in pictures}) == SETS * 6
    first, again = fed.frame_set(1, 5), fed.frame_set(1 + SETS, 6)
    assert first.frames[0].raw is again.frames[0].raw
    assert first.frames[0].raw is not fed.frame_set(2, 5).frames[0].raw
    assert set(first.stamps_ns) == {5}
    assert fed.bytes_per_set == 6 * 64 * 32 * 3 // 2


def test_the_same_pictures_have_the_same_digest_and_others_another(small_bundle):
    bundle = open_bundle(small_bundle)
    one, same = (golden_input(bundle, code="UYVY", size=(64, 32)).digest for _ in range(2))
    assert one == same
    assert one != golden_input(bundle, code="YUYV", size=(64, 32)).digest


def test_a_recording_is_fed_at_its_own_size():
    fed = source_input(open_source("synthetic", size=(160, 96), sets=8), code="UYVY")
    assert 1 <= len(fed.sets) <= SETS
    assert {(layout.width, layout.height) for layout in fed.layouts} == {
        (c.width, c.height) for c in fed.rig.cameras
    }
