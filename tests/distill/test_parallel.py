"""Several processes train as one: the same batch, the same gradients."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from fsmde_edge.distill.parallel import Team, team
from fsmde_edge.errors import UsageError

PROGRAM = textwrap.dedent(
    """
    import os
    import sys
    import torch
    from dataclasses import replace
    from made_sets import made_course, made_recipe, made_store
    from fsmde_edge.distill.batch import SetBatch, TeacherViews
    from fsmde_edge.distill.methods.recipe import MethodRecipe
    from fsmde_edge.distill.parallel import team
    from fsmde_edge.distill.recipe import StreetsRecipe
    from fsmde_edge.distill.teachers.recipe import TeacherRecipe
    from fsmde_edge.distill.trainer import start, lesson
    from fsmde_edge.student import config
    from fsmde_edge.student.config import StudentConfig

    class Lessons:
        channels = 5

        def of(self, draw):
            parts = []
            for index in draw.indices:
                generator = torch.Generator().manual_seed(index)
                shapes = ((3, 32, 64), (3, 5, 8, 16))
                parts.append([torch.rand(shape, generator=generator) for shape in shapes])
            return TeacherViews(*(torch.stack(part) for part in zip(*parts)))

    config.STUDENTS["mini"] = StudentConfig(name="mini", width=4, decoder=(8, 8, 8, 8), bins=8)
    out, method = sys.argv[1:]
    with team("cpu") as crew:
        torch.set_num_threads(1)
        taught = {} if method == "supervised" else {"teacher": TeacherRecipe(kind="own", source="x")}
        recipe = made_recipe(
            freeze_norm=True, mixed_precision=False, method=MethodRecipe(name=method), **taught,
            streets=(StreetsRecipe(scenes=1, size=(32, 64), sets_per_batch=3),),
        )
        course = made_course(recipe, made_store(sets=5), team=crew, lessons=Lessons() if taught else None)
        run = start(course)
        run.learner.double()
        wrapped = run.learner if crew.size == 1 else torch.nn.parallel.DistributedDataParallel(run.learner)
        batch, teacher = lesson(course, 3)
        batch = SetBatch(*(p.double() if p.is_floating_point() else p for p in batch))
        teacher = None if teacher is None else TeacherViews(*(p.double() for p in teacher))
        losses = wrapped(batch, teacher)
        torch.stack(list(losses.values())).sum().backward()
        if crew.leads:
            gradients = {n: p.grad for n, p in run.learner.named_parameters()}
            torch.save({"losses": {k: v.detach() for k, v in losses.items()}, "gradients": gradients}, out)
    os._exit(0)  # gloo's threads were seen to abort an interpreter that is taken down under load
    """
)


def result(folder: Path, method: str, processes: int) -> dict:
    path = folder / f"{processes}.pt"
    here = str(Path(__file__).parent)
    program = folder / "program.py"
    program.write_text(PROGRAM)
    alone = [sys.executable, str(program)]
    many = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        str(program),
    ]
    environment = {**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1"}
    command = [*(alone if processes == 1 else many), str(path), method]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("method", ["supervised", "both", "rkd"])
def test_two_processes_give_the_gradients_of_one(tmp_path, method):
    """Three frame sets, two in one process and one in the other: the global batch is what counts."""
    one, two = (result(tmp_path, method, processes) for processes in (1, 2))
    assert one["losses"].keys() == two["losses"].keys()
    for name, loss in one["losses"].items():
        assert torch.allclose(two["losses"][name], loss, rtol=1e-9), name
    largest = max(float(g.abs().max()) for g in one["gradients"].values() if g is not None)
    for name, expected in one["gradients"].items():
        got = two["gradients"][name]
        assert (got is None) == (expected is None), name
        if expected is not None:
            assert torch.allclose(got, expected, rtol=1e-6, atol=1e-6 * largest), name


def test_work_is_shared_out_and_comes_back_in_order():
    crews = [Team(rank, 3, torch.device("cpu")) for rank in range(3)]
    parts = [crew.part(range(7)) for crew in crews]
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]


def test_one_process_is_a_team():
    with team("cpu") as crew:
        assert (crew.rank, crew.size, crew.leads) == (0, 1, True)
        assert crew.gather("here") == ["here"]
        assert crew.total(torch.tensor(2.0)) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_cuda_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="sees no CUDA device"), team("cuda"):
        pass


def test_a_team_that_torchrun_did_not_start_is_one_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UsageError, match=r"WORLD_SIZE is 2.*torchrun -m fsmde_edge"), team("cpu"):
        pass
