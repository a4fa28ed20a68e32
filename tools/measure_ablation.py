"""The ablation's runs as tables, into docs/results/ablation.json.

fsmde-edge ablate fsmde_edge/distill/ablations/streets.yaml --tune --out docs/results/ablation
fsmde-edge ablate fsmde_edge/distill/ablations/streets.yaml --out docs/results/ablation
fsmde-edge ablate fsmde_edge/distill/ablations/streets.yaml --final --out docs/results/ablation
python tools/measure_ablation.py && make tables
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fsmde_edge.distill.compare import by_scene, paired_difference
from fsmde_edge.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "docs" / "results" / "ablation"
RECORD = ROOT / "docs" / "results" / "ablation.json"
ORDER = ("supervised", "ckd", "vrkd", "both", "response", "hinton", "fitnet", "rkd")
HEADER = (
    "method", "seeds", "Abs Rel", "RMSE", "δ1", "overlap accuracy", "depth consistency",
    "Abs Rel − supervised", "consistency − supervised",
)  # fmt: skip

Runs = dict[int, dict[str, Any]]


def main() -> int:
    """Gather what is there; the test split where it was read, else dev."""
    tables = [_tuning()]
    for split, folder in (("test", RUNS), ("dev", RUNS / "dev")):
        for labels in ("full", "points10", "scenes10"):
            runs = _runs(folder, labels)
            if runs:
                tables.append(_table(runs, f"{split} split, {LABELS[labels]}"))
    atomic_write(RECORD, (json.dumps({"tables": tables}, indent=1, ensure_ascii=False) + "\n").encode())
    print(f"{RECORD}: {len(tables)} tables")
    return 0


LABELS = {
    "full": "all LiDAR points",
    "points10": "a tenth of the LiDAR points",
    "scenes10": "a tenth of the scenes labelled",
}


def _runs(folder: Path, labels: str) -> dict[str, Runs]:
    """Method to seed to result."""
    found: dict[str, Runs] = defaultdict(dict)
    for path in sorted(folder.glob(f"*-{labels}-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        found[record["method"]][record["seed"]] = record
    return found


def _table(runs: dict[str, Runs], title: str) -> dict[str, Any]:
    rows = [_row(method, runs) for method in ORDER if method in runs]
    return {"title": title[0].upper() + title[1:], "header": HEADER, "rows": rows}


def _row(method: str, runs: dict[str, Runs]) -> list[str]:
    mine, base = runs[method], runs.get("supervised", {})
    values = list(mine.values())

    def told(key: str, digits: int) -> str:
        each = np.array([run[key] for run in values])
        return (
            f"{each.mean():.{digits}f} ± {each.std(ddof=1):.{digits}f}"
            if len(each) > 1
            else f"{each[0]:.{digits}f}"
        )

    apart = ["", ""]
    shared = sorted(set(mine) & set(base))
    if method != "supervised" and shared:
        pairs = [[side[seed] for seed in shared] for side in (mine, base)]
        apart = [_difference(*pairs, key) for key in ("abs_rel", "depth_consistency")]
    columns = (("abs_rel", 4), ("rmse", 2), ("d1", 3), ("overlap_accuracy", 4), ("depth_consistency", 4))
    return [method, str(len(values)), *(told(*column) for column in columns), *apart]


def _difference(mine: list[dict[str, Any]], base: list[dict[str, Any]], key: str) -> str:
    found = paired_difference(*_same_scenes(mine, base, key))
    mark = "" if found.is_clear else " (0 inside)"
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]{mark}"


def _same_scenes(mine: list[dict[str, Any]], base: list[dict[str, Any]], key: str) -> Any:
    both = by_scene([*mine, *base], key)
    return both[: len(mine)], both[len(mine) :]


def _tuning() -> dict[str, Any]:
    rows = []
    for path in sorted(
        (RUNS / "tune").glob("*.json"), key=lambda p: (ORDER.index(p.stem.split("-")[0]), p.stem)
    ):
        record = json.loads(path.read_text(encoding="utf-8"))
        settings = {k: v for k, v in record["settings"].items() if k != "name" and v is not None}
        if len(settings) > 1:
            del settings["supervised"]  # the same for all that have a teacher
        told = "; ".join(f"{k} {_brief(v)}" for k, v in settings.items())
        rows.append([path.stem, told, f"{record['abs_rel']:.4f}", f"{record['depth_consistency']:.4f}"])
    header = ("trial", "settings", "Abs Rel", "depth consistency")
    return {"title": "Trials on the dev split, one seed each", "header": header, "rows": rows}


def _brief(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


if __name__ == "__main__":
    sys.exit(main())
