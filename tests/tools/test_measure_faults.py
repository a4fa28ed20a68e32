from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from measure_faults import lost

CALM = {"gap": 0, "late": 0, "error flag": 0, "slow consumer": 90, "unmatched": 12}


def fault(*, sets=40, incomplete=0, invalid=0, outage_s=0.0, code=0, **drops):
    hit = {"path": "/dev/video2", "outage_s": outage_s, "drops": CALM | drops}
    others = {
        f"/dev/video{number}": {"path": f"/dev/video{number}", "outage_s": 9.0, "drops": CALM | {"gap": gap}}
        for number, gap in enumerate((1, 99))
    }
    others["/dev/video5"] = {"path": "/dev/video5", "outage_s": 0.0, "drops": CALM | {"gap": 2}}
    cameras = {**others, "hit": hit}
    state = {"sets": sets, "incomplete": incomplete, "invalid": invalid, "cameras": cameras}
    return {"exit": code, "health": state if sets is not None else {}}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (fault(), "nothing"),
        (fault(gap=5), "3 pictures (gap)"),  # the others lost two each, as a rule
        (fault(gap=2), "nothing"),
        (
            fault(outage_s=2.06, incomplete=4, invalid=4),
            "2.1 s of the camera, 4 of 40 sets lacked a view",
        ),
        (
            fault(incomplete=1, invalid=6),
            "1 of 40 sets lacked a view, 5 of 40 sets had a view marked invalid",
        ),
        (fault(sets=0, code=5), "no set was made"),
        (fault(sets=None, code=2), "no set was made"),
    ],
)
def test_what_a_fault_cost_in_words(found, words):
    assert lost(found) == words
