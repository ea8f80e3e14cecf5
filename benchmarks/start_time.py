"""Whole-process time of ``headstart --help`` and of predicting one image.

python benchmarks/start_time.py [--runs 9]
"""

from __future__ import annotations

from functools import partial

from measure import COMMAND, Scratch, alternating_medians, mobilenetv2, parse_runs, print_table, run_process, shared

LIMITS = {  # seconds
    "headstart --help": 0.3,
    "predict, one image (OpenVINO)": 1.2,
    "predict, one image (ONNX Runtime)": 1.2,
}


def main() -> None:
    runs = parse_runs(__doc__, default=9)
    data = shared() / "data" / "horse-or-human"
    image = min((data / "validation" / "horses").iterdir())
    with Scratch() as scratch:
        cache, model = scratch.cache(), scratch.path / "model"
        run_process([COMMAND, "fit", data, "--backbone", mobilenetv2(), "-o", model], cache)
        predict = [COMMAND, "predict", model, image, "--runtime"]
        commands = dict(
            zip(LIMITS, ([COMMAND, "--help"], [*predict, "openvino"], [*predict, "onnxruntime"]), strict=True)
        )

        def run(command: list[object]) -> float:
            return run_process(command, cache).seconds

        medians = alternating_medians(runs, {name: partial(run, command) for name, command in commands.items()})
    print_table([{"command": name, "seconds": seconds, "limit": LIMITS[name]} for name, seconds in medians.items()])


if __name__ == "__main__":
    main()
