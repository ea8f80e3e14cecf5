"""Prove this export on a Mac, by Core ML itself.

    pip install coremltools numpy pillow
    python3 prove_on_mac.py

Prints the largest differences, and ends with status 1 where an answer differs or leaves the tolerance.
"""

import json
import sys
from pathlib import Path
from typing import Any

import coremltools
import numpy as np
from PIL import Image
from preprocess import preprocess

HERE = Path(__file__).resolve().parent
TOLERANCES = {"fp32": 0.002, "fp16": 0.025}  # of a probability and of the OOD score


def main() -> int:
    """Answer all images of the proof and compare."""
    model = coremltools.models.MLModel(str(HERE / "model.mlpackage"), compute_units=coremltools.ComputeUnit.CPU_ONLY)
    about = json.loads((HERE / "parity.json").read_text("utf-8"))["about"]
    precision, thresholds = about["precision"], about.get("label_thresholds", {}).get("thresholds")
    labels = (HERE / "labels.txt").read_text("utf-8").splitlines()
    with np.load(HERE / "proof" / "expected.npz", allow_pickle=False) as expected:
        files = [preprocess(HERE / "proof" / str(name)) for name in expected["names"]]
        wanted = {"low-margin images": (expected["pixels"], "low"), "image files": (files, "files")}
        is_wrong = False
        for title, (images, key) in wanted.items():
            probabilities, distances = answers(model, labels, images)
            p, d = expected[f"{key}.probabilities"], expected[f"{key}.distances"]
            difference, distance = np.abs(probabilities - p).max(), np.abs(distances - d).max()
            changed = int(np.any(decisions(probabilities, thresholds) != decisions(p, thresholds), axis=1).sum())
            print(
                f"{title}: {len(p)}, largest difference {difference:.2g} in a probability, {distance:.2g} in an OOD "
                f"score; {changed} changed answers"
            )
            is_wrong |= (bool(changed) and precision == "fp32") or max(difference, distance) > TOLERANCES[precision]
    return int(is_wrong)


def decisions(probabilities: Any, thresholds: list[float] | None) -> Any:
    """Return the most probable class [n, 1] or, of several labels an image, which hold [n, k]."""
    if thresholds is None:
        return probabilities.argmax(axis=1, keepdims=True)
    return probabilities >= np.array(thresholds)


def answers(model: Any, labels: list[str], images: Any) -> tuple[Any, Any]:
    """Return probabilities [n, k] and OOD scores [n] of prepared images."""
    results = [model.predict({"pixels": Image.fromarray(np.asarray(image))}) for image in images]
    probabilities = [
        [result["classLabel_probs"][label] for label in labels]
        if "classLabel_probs" in result
        else np.ravel(result["probabilities"])
        for result in results
    ]
    return np.array(probabilities), np.array([float(np.ravel(result["distance"])[0]) for result in results])


if __name__ == "__main__":
    sys.exit(main())
