"""What every data set is: a sequence of samples, loaded one at a time."""

from __future__ import annotations

from typing import Literal, Protocol

from fsmde_edge.frames import Sample

Kind = Literal["dgp", "nuscenes", "synthetic"]


class Dataset(Protocol):
    """Samples by index; each is read from disk when it is asked for and not kept."""

    @property
    def name(self) -> str:
        """A short name for reports: the data set's folder or file."""

    @property
    def kind(self) -> Kind:
        """Which layout it is read from."""

    @property
    def sample_names(self) -> tuple[str, ...]:
        """Every sample's name, `scene/sample`, in order: nothing is loaded for it."""

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, index: int) -> Sample:
        """One sample; `IndexError` beyond the end, `InputError` where its files cannot be used."""
