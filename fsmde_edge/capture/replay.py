"""A data set replayed as if its cameras were live."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from fsmde_edge.datasets import Dataset
from fsmde_edge.errors import InputError
from fsmde_edge.frames import FrameSet, Sample
from fsmde_edge.rig import Rig


class DatasetReplay:
    """Yields the frame sets of a data set in order, each loaded when it is asked for. Never drops any.

    Every sample must have the same cameras; their calibration may change from scene to scene.
    """

    def __init__(self, dataset: Dataset, *, realtime: bool = False) -> None:
        """Load the first sample, for its rig.

        Args:
            dataset: any data set.
            realtime: keep the recording's own pace, by its stamps; as fast as possible if False. Pauses of
                more than a second (a new scene) are skipped.

        Errors:
            InputError: an empty data set, or a first sample that cannot be loaded.
        """
        if not len(dataset):
            raise InputError("the data set holds no sample", where=dataset.name)
        self._dataset, self._realtime = dataset, realtime
        self._first: Sample | None = dataset[0]
        self._rig = self._first.rig

    @property
    def name(self) -> str:
        """The data set's name."""
        return self._dataset.name

    @property
    def rig(self) -> Rig:
        """The rig of the frame set that was yielded last; before the first, that of the first."""
        return self._rig

    @property
    def drops(self) -> Mapping[str, Mapping[str, int]]:
        """A replay waits for its reader: no camera ever drops a picture."""
        return {camera: {} for camera in self._rig.names}

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[FrameSet]:
        previous_ns, previous_time = None, 0.0
        for index in range(len(self._dataset)):
            sample = self._load(index)
            self._rig = sample.rig
            stamp = sample.frame_set.stamps_ns[0]
            if self._realtime and previous_ns is not None:
                pause((stamp - previous_ns) / 1e9, since=previous_time)
            previous_ns, previous_time = stamp, time.monotonic()
            yield sample.frame_set

    @property
    def layouts(self) -> None:
        """Pictures are RGB."""
        return None

    def stop(self) -> None:
        """Nothing here waits."""

    def close(self) -> None:
        """Forget the loaded sample."""
        self._first = None

    def _load(self, index: int) -> Sample:
        first, self._first = self._first, None
        sample = first if index == 0 and first is not None else self._dataset[index]
        if sample.rig.names != self._rig.names:
            raise InputError(
                f"sample {sample.frame_set.name} has the cameras {', '.join(sample.rig.names)}, "
                f"those before it {', '.join(self._rig.names)}",
                where=self.name,
                hint="choose scenes or cameras that go together",
            )
        return sample


def pause(gap: float, *, since: float) -> None:
    """Wait until a gap of up to a second is over; longer ones are skipped.

    Args:
        gap: seconds between two sets of a recording.
        since: when the first was given, on `time.monotonic`.
    """
    if 0 < gap <= 1:
        time.sleep(max(0.0, since + gap - time.monotonic()))
