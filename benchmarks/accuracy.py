"""Accuracy of the defaults on real pictures, beside what plain leave-one-out would have chosen and claimed.

python benchmarks/accuracy.py
"""

from __future__ import annotations

from measure import Scratch, shared, table

import headstart as hs


def row(data: str, **options: object) -> dict[str, object]:
    backbone = f"onnx:{shared() / 'weights' / 'mobilenetv2-imagenet.onnx'}"
    classifier = hs.ImageClassifier(backbone=backbone, **options).fit(shared() / "data" / data)
    claimed, found = classifier.accuracy_["leave_group_out"], classifier.accuracy_["validation"]
    run = classifier.run_
    settings = {k: v for k, v in run["head"].items() if k not in ("kind", "temperature")}
    return {
        "data": data, "selection leaves out": "pictures" if options.get("group_by") == "none" else "groups",
        "runtime": f"{run['runtime']['name']} {run['runtime']['precision']}",
        "groups": run["groups"]["count"], "cut": ", ".join(run["cut"]),
        "head": f"{run['head']['kind']} {', '.join(f'{k} {v:.3g}' for k, v in settings.items())}",
        "claimed": f"{claimed.value:.1%} [{claimed.interval[0]:.1%}, {claimed.interval[1]:.1%}]",
        "validation": f"{found.correct}/{found.count} = {found.value:.1%} "
        f"[{found.interval[0]:.1%}, {found.interval[1]:.1%}]",
        "intervals overlap": claimed.interval[0] <= found.interval[1] and found.interval[0] <= claimed.interval[1],
    }  # fmt: skip


if __name__ == "__main__":
    import os

    with Scratch() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch.cache())
        rows = []
        for runtime in ("openvino", "onnxruntime"):
            for data in ("horse-or-human", "ants-bees"):
                rows += [row(data, runtime=runtime), row(data, runtime=runtime, group_by="none")]
        table(rows)
