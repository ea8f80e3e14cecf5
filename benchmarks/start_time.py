"""Whole-process time of ``headstart --help`` and of predicting one picture.

python benchmarks/start_time.py [--runs 9]
"""

from __future__ import annotations

from measure import COMMAND, Scratch, arguments, process, shared, side_by_side, table

if __name__ == "__main__":
    runs = arguments(__doc__, runs=9).runs
    data, weights = shared() / "data" / "horse-or-human", shared() / "weights" / "mobilenetv2-imagenet.onnx"
    picture = sorted((data / "validation" / "horses").iterdir())[0]
    with Scratch() as scratch:
        cache, model = scratch.cache(), scratch.path / "m"
        process([COMMAND, "fit", data, "--backbone", f"onnx:{weights}", "-o", model], cache)
        commands = {
            "headstart --help": [COMMAND, "--help"],
            "predict, one picture (OpenVINO)": [COMMAND, "predict", model, picture, "--runtime", "openvino"],
            "predict, one picture (ONNX Runtime)": [COMMAND, "predict", model, picture, "--runtime", "onnxruntime"],
        }
        limits = dict(zip(commands, (0.3, 1.2, 1.2), strict=True))
        found = side_by_side(runs, **{k: lambda c=c: process(c, cache)[0] for k, c in commands.items()})
        table([{"command": k, "seconds": v, "limit": limits[k]} for k, v in found.items()])
