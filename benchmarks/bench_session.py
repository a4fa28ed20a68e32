"""One inference of six views: FP32 beside INT8, our session beside ONNX Runtime called directly."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsmde_edge.bundle import open_bundle
from fsmde_edge.compiler.sources import SHIPPED_CHECKPOINT

RECIPE = """\
version: 1
size: [96, 160]
data:
  - {split: train, count: 2, seed: 5}
gate:
  - {split: dev, count: 1, seed: 5}
budget: {deviation: 1, p99: 2, worst_tile: 2, farther: 1, abs_rel_change: 2}
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The tiny student at 96x160, as shipped (or not trained, while none is shipped: speed is the same)."""
    from fsmde_edge.compiler.build import BuildOptions, build

    folder = tmp_path_factory.mktemp("bench")
    (folder / "recipe.yaml").write_text(RECIPE)
    options = BuildOptions(
        precision="int8",
        out=folder / "bundle",
        checkpoint=SHIPPED_CHECKPOINT if SHIPPED_CHECKPOINT.exists() else untrained(folder),
        recipe=str(folder / "recipe.yaml"),
        allow_few=True,
        threads=1,
    )
    build(options, lambda _: None)
    return open_bundle(options.out)


def untrained(folder: Path) -> Path:
    """A tiny student with random weights."""
    from fsmde_edge.student.checkpoint import save_checkpoint
    from fsmde_edge.student.config import STUDENTS
    from fsmde_edge.student.network import Student

    save_checkpoint(folder / "tiny.safetensors", Student(STUDENTS["tiny"]), made={})
    return folder / "tiny.safetensors"


@pytest.mark.benchmark(group="six views of 96x160", warmup=True, warmup_iterations=3)
class BenchSession:
    """All four on one thread and on the same frames."""

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_onnxruntime(self, benchmark, bundle, precision):
        """The peer: the bundle's file in a plain ONNX Runtime session."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(bundle.model(precision)), options)
        golden = bundle.golden()
        benchmark(session.run, ["depth"], {"images": golden.images, "focal": golden.focal})

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_session(self, benchmark, bundle, precision):
        """Ours."""
        from fsmde_edge.inference.backends import open_session

        golden = bundle.golden()
        with open_session(bundle, precision=precision, threads=1).session as session:
            benchmark(session.infer, golden.images, golden.focal)
