"""Frames of all views into the network's input, by the C kernel or by the definition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fsmde_edge.errors import DeviceError, InputError
from fsmde_edge.preprocessing.kernel import Kernel, load_kernel
from fsmde_edge.preprocessing.raw import RawLayout
from fsmde_edge.preprocessing.tables import Unfit, geometry
from fsmde_edge.preprocessing.view import Buffer, DefinitionView, KernelView, View
from fsmde_edge.rig import Camera, VirtualPinhole

How = Literal["auto", "kernel", "definition"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Preparation:
    """The way from the cameras' buffers to the network's input.

    Attributes:
        name: what works, for people, with the reason where it is not the kernel.
        views: one for each camera.
        size: (height, width) of a view.
        threads: views that are made at once.
    """

    name: str
    views: tuple[View, ...]
    size: tuple[int, int]
    threads: int = 1

    def images(
        self,
        buffers: Sequence[Buffer | None],
        out: NDArray[np.uint8] | None = None,
        *,
        broken: Callable[[int], object] | None = None,
    ) -> NDArray[np.uint8]:
        """The network's images, uint8 [V, H, W, 3].

        Args:
            buffers: of each view; black if None.
            out: where to make them.
            broken: is told of a view whose buffer does not hold a picture, which is black then.

        Raises:
            InputError: another number of buffers; or one that does not hold a picture, without `broken`.
        """
        if len(buffers) != len(self.views):
            raise InputError(f"{len(buffers)} pictures and {len(self.views)} views do not go together")
        made = np.empty((len(self.views), *self.size, 3), np.uint8) if out is None else out

        def make(view: int) -> None:
            try:
                _make(self.views[view], buffers[view], made[view])
            except InputError:
                if broken is None:
                    raise
                made[view] = 0
                broken(view)

        if self.threads == 1:
            for view in range(len(self.views)):
                make(view)
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                list(pool.map(make, range(len(self.views))))
        return made


def _make(view: View, buffer: Buffer | None, out: NDArray[np.uint8]) -> None:
    if buffer is None:
        out[:] = 0
    else:
        view(buffer, out)


def open_preparation(
    cameras: Sequence[Camera],
    pinholes: Sequence[VirtualPinhole],
    *,
    layouts: Sequence[RawLayout] | None = None,
    how: How = "auto",
    threads: int = 1,
) -> Preparation:
    """Tables for these cameras, made once.

    Args:
        cameras: in ring order.
        pinholes: the view that each becomes, all of one size.
        layouts: of the cameras' buffers; RGB pictures without gaps if None.
        how: `auto` takes the kernel where it can be compiled, else the definition, and says why.
        threads: views that are made at once.

    Raises:
        InputError: a layout of another size than its camera's.
        DeviceError: the kernel was asked for and cannot be had.
    """
    layouts = layouts or [RawLayout(code="RGB3", width=c.width, height=c.height) for c in cameras]
    for camera, layout in zip(cameras, layouts, strict=True):
        if (layout.width, layout.height) != (camera.width, camera.height):
            raise InputError(
                f"camera {camera.name} is calibrated for {camera.width}x{camera.height}, its pictures are "
                f"{layout.width}x{layout.height}",
                hint="choose the size that was calibrated, or calibrate again",
            )
    triples = list(zip(cameras, pinholes, layouts, strict=True))
    kernel, reason = _kernel(how)
    views, unfit = list[View](), list[str]()
    for camera, pinhole, layout in triples:
        view = None if kernel is None else _kernel_view(kernel, camera, pinhole, layout)
        if kernel is not None and view is None:
            unfit.append(camera.name)
        views.append(view or DefinitionView(camera=camera, pinhole=pinhole, layout=layout))
    return Preparation(
        name=_name(kernel, reason, unfit),
        views=tuple(views),
        size=(pinholes[0].height, pinholes[0].width),
        threads=min(threads, len(views)),
    )


def _kernel(how: How) -> tuple[Kernel | None, str]:
    if how == "definition":
        return None, "as asked"
    try:
        return load_kernel(), ""
    except DeviceError as error:
        if how == "kernel":
            raise
        return None, str(error)


def _name(kernel: Kernel | None, reason: str, unfit: Sequence[str]) -> str:
    if kernel is None:
        return f"the definition in NumPy ({reason})"
    slow = f"; {', '.join(unfit)} by the definition, because the lens bends too strongly" if unfit else ""
    return f"the C kernel ({kernel.compiler}){slow}"


def _kernel_view(kernel: Kernel, camera: Camera, pinhole: VirtualPinhole, layout: RawLayout) -> View | None:
    """The kernel's view, or None where tables cannot describe the lens."""
    try:
        shape = geometry(camera, pinhole)
    except Unfit:
        return None
    return KernelView.of(kernel, shape, layout, width=pinhole.width)


def prepare_picture(
    image: NDArray[np.uint8], camera: Camera, pinhole: VirtualPinhole, *, how: How = "kernel"
) -> NDArray[np.uint8]:
    """What `preprocess` gives, by another implementation; for comparisons, since tables serve one picture."""
    made = open_preparation([camera], [pinhole], how=how)
    return np.asarray(made.images([np.ascontiguousarray(image).reshape(-1)])[0])
