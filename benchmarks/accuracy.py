"""Accuracy of the defaults on real images, beside what plain leave-one-out would have selected and reported.

python benchmarks/accuracy.py
"""

from __future__ import annotations

import os

from measure import Scratch, mobilenetv2, print_table, shared

import headstart as hs
from headstart.backbones import DEFAULT_BACKBONE, FAST_BACKBONE
from headstart.stats.accuracy import Accuracy, disjoint


def fit(backbone: str, name: str, runtime: str, group_by: str) -> dict[str, object]:
    """Fit to a dataset; ``group_by`` "none" leaves out single images, "auto" their groups."""
    classifier = hs.ImageClassifier(backbone, runtime=runtime, group_by=group_by)
    classifier.fit(shared() / "data" / name)
    left_out, validation = classifier.accuracy_["leave_group_out"], classifier.accuracy_["validation"]
    run = classifier.run_
    settings = {key: value for key, value in run["head"].items() if key not in ("kind", "temperature")}
    return {
        "backbone": run["backbone"]["id"],
        "dataset": name,
        "left out together": "single images" if group_by == "none" else "groups",
        "runtime": f"{run['runtime']['name']} {run['runtime']['precision']}",
        "groups": run["groups"]["count"],
        "cut": ", ".join(run["cut"]),
        "head": f"{run['head']['kind']} {', '.join(f'{key} {value:.3g}' for key, value in settings.items())}",
        "left-out accuracy": _with_interval(left_out),
        "validation accuracy": f"{validation.correct}/{validation.count} = {_with_interval(validation)}",
        "intervals overlap": not disjoint(left_out.interval, validation.interval),
    }


def _with_interval(accuracy: Accuracy) -> str:
    low, high = accuracy.interval
    return f"{accuracy.value:.1%} [{low:.1%}, {high:.1%}]"


def main() -> None:
    with Scratch() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch.cache())
        print_table(
            [
                fit(backbone, name, runtime, group_by)
                for backbone in (DEFAULT_BACKBONE, FAST_BACKBONE, mobilenetv2())
                for runtime in ("openvino", "onnxruntime")
                for name in ("horse-or-human", "ants-bees")
                for group_by in ("auto", "none")
            ]
        )


if __name__ == "__main__":
    main()
