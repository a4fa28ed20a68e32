"""The preprocessing kernel on a GPU gives what the definition gives."""

from __future__ import annotations

import numpy as np
import pytest

from fsmde_edge.gpu.cuda import DeviceMemory, PinnedArray, Stream, runtime
from fsmde_edge.gpu.kernel import driver
from fsmde_edge.preprocess import preprocess
from fsmde_edge.preprocessing.launch import plan_launch
from fsmde_edge.preprocessing.on_gpu import GpuPreparation
from fsmde_edge.preprocessing.raw import FORMATS, RawLayout, unpack
from fsmde_edge.rig import BrownConrady, Camera, VirtualPinhole

pytestmark = pytest.mark.cuda

SIZE, VIEW = (1936, 1216), (640, 384)


@pytest.mark.parametrize("code", [code for code, format in FORMATS.items() if not format.compressed])
def test_every_format_is_what_the_definition_makes_of_it(code):
    k = np.array([[1060.0, 0, 968], [0, 1060, 608], [0, 0, 1]])
    made = Camera(
        name="a",
        width=SIZE[0],
        height=SIZE[1],
        intrinsics=k,
        camera_to_vehicle=np.eye(4),
        distortion=BrownConrady(k1=-0.3, k2=0.08),
    )
    layout, pinhole = RawLayout(code=code, width=SIZE[0], height=SIZE[1]), VirtualPinhole.of(made, *VIEW)
    data = waves(layout)
    found = on_gpu(made, pinhole, layout, data).astype(int)
    expected = preprocess(unpack(data, layout), made, pinhole)
    assert np.abs(found - expected).max() <= 4


def waves(layout):
    """A buffer whose values vary slowly along rows and down columns, chroma as luma."""
    wide = layout.format.kind == "bayer" and layout.format.bits > 8
    row, place = np.mgrid[0 : layout.size // layout.stride, 0 : layout.stride // (2 if wide else 1)]
    values = (120 + 20 * np.sin(row / 90) + 15 * np.cos(place / 150)).astype(np.uint8)
    return (values.astype("<u2") << (layout.format.bits - 8) if wide else values).view(np.uint8).reshape(-1)


def on_gpu(made, pinhole, layout, data):
    cuda = runtime()
    stream = Stream(cuda)
    pinned = PinnedArray(cuda, data.shape, data.dtype)
    result = PinnedArray(cuda, (pinhole.height, pinhole.width, 3), np.dtype(np.uint8))
    images = DeviceMemory(cuda, result.array.nbytes)
    pinned.array[:] = data
    launch = plan_launch([made], [pinhole], [layout])
    with GpuPreparation(launch, cuda, driver(), stream=stream) as preparation:
        preparation.start([pinned.on_device()], images.pointer)
        stream.download(result, images)
        stream.wait()
    found = result.array.copy()
    for owned in (images, result, pinned, stream):
        owned.close()
    return found
