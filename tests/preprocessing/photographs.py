"""Pictures as cameras send them, for tests of the ways into the network's input."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import strategies as st

from fsmde_edge.rig import BrownConrady, Camera, Fisheye, NoDistortion


def camera(lens, width, height, *, fx=0.55):
    k = np.array([[fx * width, 0, width / 2 + 1.5], [0, fx * width * 1.02, height / 2 - 0.75], [0, 0, 1]])
    return Camera(
        name="a", width=width, height=height, intrinsics=k, camera_to_vehicle=np.eye(4), distortion=lens
    )


def photograph(width, height, seed=0):
    """Blurred noise as rough as a photograph; colours vary less than brightness, and fit into YUV."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 4)).astype(np.float32)
    light, colour = (
        cv2.GaussianBlur(noise[..., 3], (0, 0), 2.5),
        cv2.GaussianBlur(noise[..., :3], (0, 0), 3.5),
    )
    picture = 127.5 + 35 * light[..., None] / light.std() + 12 * colour / colour.std()
    return np.clip(picture, 40, 215).astype(np.uint8)


def raw_of(rgb, layout):
    """A buffer that shows a picture; chroma is averaged where pixels share it."""
    format, (height, width) = layout.format, rgb.shape[:2]
    if format.kind in {"rgb", "grey"}:
        pixels = rgb[..., ::-1] if format.order == "BGR" else rgb[..., :1] if format.kind == "grey" else rgb
        rows = [pixels.reshape(height, -1)]
    else:
        matrix, offset = layout.colour.to_rgb()
        yuv = np.clip(np.round((rgb - offset) @ np.linalg.inv(matrix).T), 0, 255)
        chroma = yuv[..., 1:].reshape(height, width // 2, 2, 2).mean(axis=2)
        if format.halved_rows:
            chroma = chroma.reshape(height // 2, 2, width // 2, 2).mean(axis=1)
        luma, chroma = yuv[..., 0].astype(np.uint8), np.round(chroma).astype(np.uint8)
        if format.kind == "packed":
            pairs = luma.reshape(height, -1, 2)
            parts = {
                "Y": iter((pairs[..., 0], pairs[..., 1])),
                "U": iter((chroma[..., 0],)),
                "V": iter((chroma[..., 1],)),
            }
            rows = [np.stack([next(parts[letter]) for letter in format.order], axis=-1).reshape(height, -1)]
        else:
            rows = [luma, chroma.reshape(len(chroma), -1)]
    return b"".join(np.pad(plane, ((0, 0), (0, layout.stride - plane.shape[1]))).tobytes() for plane in rows)


lenses = st.one_of(
    st.just(NoDistortion()),
    st.builds(BrownConrady, k1=st.floats(-0.3, 0.1), k2=st.floats(-0.02, 0.05), p1=st.floats(-2e-3, 2e-3)),
    st.builds(Fisheye, k1=st.floats(-0.05, 0.05)),
)
