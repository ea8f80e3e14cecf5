"""Class issues: empty and small classes, and imbalance."""

import shutil

from headstart.check import check_dataset
from headstart.data import open_dataset
from headstart.features import Compute


def test_empty_small_and_imbalanced_classes_are_found(photos):
    for path in sorted((photos / "train" / "humans").iterdir())[4:]:
        path.unlink()
    shutil.rmtree(photos / "validation" / "humans")
    findings = check_dataset(open_dataset(photos), Compute("onnxruntime")).findings
    why = {f.kind: f.why for f in findings if f.kind == "imbalance"}
    assert why == {"imbalance": "horses has 48 images, humans has 4"}
    empty = [f.why for f in findings if f.kind == "empty_class"]
    assert empty == ["humans has no images in validation", "humans has too few images in train: 4"]
