"""Synthetic street scenes as a live source: a rig without hardware."""

from __future__ import annotations

from typing import cast

from fsmde_edge.capture.replay import DatasetReplay


def synthetic_source(
    split: str = "test",
    *,
    scenes: int = 2,
    samples_per_scene: int = 4,
    width: int = 640,
    height: int = 384,
    seed: int = 0,
    realtime: bool = False,
) -> DatasetReplay:
    """Street scenes that are made while they are replayed.

    Args:
        split: train, dev or test: they differ in seeds, textures and camera heights.
        scenes, samples_per_scene: how many.
        width, height: of the pictures, in pixels.
        seed: same seed, same pictures.
        realtime: keep the scenes' own pace.

    Errors:
        InputError: an unknown split, or sizes that make no data set.
    """
    from fsmde_edge.datasets.synthetic import Split, SyntheticStreets

    streets = SyntheticStreets(
        cast(Split, split),
        scenes=scenes,
        samples_per_scene=samples_per_scene,
        width=width,
        height=height,
        seed=seed,
    )
    return DatasetReplay(streets, realtime=realtime)
