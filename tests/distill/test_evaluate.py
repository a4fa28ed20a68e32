"""A student's score is the evaluation's own, however many processes share the work."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fsmde_edge.datasets.synthetic import SyntheticStreets
from fsmde_edge.distill.evaluate import evaluate
from fsmde_edge.distill.parallel import Team
from fsmde_edge.evaluation.cross_view import cross_view
from fsmde_edge.evaluation.protocols import PROTOCOLS, pair_set, summarise

SIZE = (64, 96)
CPU = torch.device("cpu")


class Told:
    """A student that says what it is told: exact depth, scaled."""

    def __init__(self, streets, scale):
        self.depth = [np.stack(list(streets.dense_depth(i).values())) for i in range(len(streets))]
        self.scale, self.asked = scale, 0

    def __call__(self, pictures, focal):
        assert pictures.shape == (6, 3, *SIZE)
        depth = np.where(self.depth[self.asked] > 0, self.depth[self.asked], 100) * self.scale
        self.asked += 1
        return type("Prediction", (), {"depth": torch.from_numpy(depth)})


@pytest.fixture(scope="module")
def streets():
    return SyntheticStreets("dev", scenes=3, width=SIZE[1], height=SIZE[0])


def test_the_score_is_that_of_protocol_and_cross_view(streets):
    score = evaluate(Told(streets, 1.1), streets, size=SIZE, team=Team(0, 1, CPU))
    told, depths, samples = Told(streets, 1.1), [], list(streets)
    for _ in samples:
        depths.append(told(torch.zeros(6, 3, *SIZE), None).depth.numpy().astype(np.float32))
    accuracy = summarise(
        [pair_set(d, s, PROTOCOLS["deploy"]) for d, s in zip(depths, samples, strict=True)],
        PROTOCOLS["deploy"],
    )
    assert score.abs_rel == pytest.approx(accuracy.cameras["mean"].abs_rel)
    assert score.d1 == pytest.approx(accuracy.cameras["mean"].d1)
    assert score.per_camera.keys() == accuracy.cameras.keys() - {"mean"}
    seen_twice = cross_view(depths, samples, max_depth=200.0)
    assert score.overlap_accuracy == pytest.approx(seen_twice.overlap_accuracy)
    assert score.depth_consistency == pytest.approx(seen_twice.depth_consistency)
    assert [one.name for one in score.sets] == [s.frame_set.name for s in samples]


def test_a_worse_student_scores_worse(streets):
    good, bad = (evaluate(Told(streets, s), streets, size=SIZE, team=Team(0, 1, CPU)) for s in (1.0, 1.5))
    assert good.abs_rel + 0.3 < bad.abs_rel
    assert all(a.abs_rel < b.abs_rel for a, b in zip(good.sets, bad.sets, strict=True))


def test_processes_that_share_the_work_get_the_whole_score(streets):
    """What each of two processes would give is put together by hand here."""
    whole = evaluate(Told(streets, 1.2), streets, size=SIZE, team=Team(0, 1, CPU))

    class Half(Team):
        def gather(self, value):
            gathered.append(value)
            return gathered if len(gathered) == 2 else [value, value]

    gathered = []
    students = [Told(streets, 1.2), Told(streets, 1.2)]
    students[1].asked = 1
    students[0].depth = students[0].depth[::2]
    with pytest.raises(IndexError):  # the first alone holds but two of three sets
        evaluate(students[1], streets, size=SIZE, team=Half(1, 2, CPU))
    gathered.clear()
    evaluate(students[0], streets, size=SIZE, team=Half(0, 2, CPU))
    students[1].asked = 1
    score = evaluate(students[1], streets, size=SIZE, team=Half(1, 2, CPU))
    assert score.abs_rel == pytest.approx(whole.abs_rel)
    assert [one.name for one in score.sets] == [one.name for one in whole.sets]
