"""A whole check: planted faults are found, clean sets are left alone, and the command prints the findings."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers.faults import findings_by_kind, image_path
from helpers.graphs import trained_network
from PIL import Image

from headstart.backbones import DEFAULT_BACKBONE
from headstart.backbones.scaling import USUAL, Scaling
from headstart.check import check as check_module
from headstart.check import check_dataset, labels
from headstart.check.labels import find_outliers
from headstart.cli import main
from headstart.data import Item, from_images, open_dataset
from headstart.errors import DataError
from headstart.features import Features
from headstart.splits import clusters, nearest


def test_a_clean_set_has_next_to_no_findings(clean):
    findings = findings_by_kind(clean, DEFAULT_BACKBONE)
    assert sum(map(len, findings.values())) <= 1  # a label issue: some rendered figures are ambiguous
    for kind in ("leak", "conflicting_labels", "exact_duplicate", "near_duplicate", "unreadable", "tiny", "dark"):
        assert findings[kind] == [], kind


def test_flipped_labels_broken_files_and_outliers_are_found(photos):
    humans = photos / "train" / "humans"
    flipped = [image_path(photos, number=n).rename(humans / f"flipped{n}.jpg") for n in (0, 11, 22)]
    broken = image_path(photos, number=8)
    broken.write_bytes(broken.read_bytes()[:900])
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    outlier = photos / "train" / "horses" / "outlier.png"
    Image.fromarray(noise).resize((200, 200), Image.Resampling.NEAREST).save(outlier)
    findings = findings_by_kind(photos, DEFAULT_BACKBONE)
    assert sum({str(path)} in findings["label_issue"] for path in flipped) >= 2
    assert findings["unreadable"] == [{str(broken)}]
    assert {str(outlier)} in findings["outlier"]


def test_a_backbone_whose_scaling_nobody_names_is_checked_by_its_batch_norms(photos, tmp_path):
    dataset = open_dataset(photos)
    scaling = Scaling(*USUAL["ImageNet's mean and deviation"])
    id = trained_network(scaling, dataset, tmp_path / "net.onnx")
    (note,) = check_dataset(dataset, backbone=id).notes
    assert f"its batch norms fit {scaling}, which is taken" in note
    assert not check_dataset(dataset, backbone="headstart-s").notes


def test_many_images_are_checked_by_an_index_with_the_same_findings(photos, monkeypatch):
    shutil.copy(image_path(photos, number=3), photos / "train" / "humans" / "again.jpg")
    with Image.open(image_path(photos, number=5)) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(photos / "train" / "horses" / "mirrored.jpg", quality=80)
    dataset = open_dataset(photos)
    exact = check_dataset(dataset, backbone="headstart-s")
    for module in (nearest, check_module):
        monkeypatch.setattr(module, "LIMIT", 50)
    found = check_dataset(dataset, backbone="headstart-s")

    assert [(one.kind, set(one.files)) for one in found.findings] == [(o.kind, set(o.files)) for o in exact.findings]
    assert {"conflicting_labels", "near_duplicate"} <= {one.kind for one in exact.findings}
    assert exact.notes == found.notes == ()


def test_a_rare_kind_is_no_outlier_where_a_part_of_many_images_is_compared(monkeypatch):
    """12 images of a kind of their own, of which 3 are in the part; and one that is like no other."""
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(6, 64))
    kind = np.r_[np.arange(588) % 5, np.full(12, 5)]
    values = kinds[kind] + 0.3 * rng.normal(size=(600, 64))
    values = np.concatenate([values, 3 * rng.normal(size=(1, 64))])[rng.permutation(601)].astype(np.float32)
    items = tuple(Item(f"{i}.jpg", "a", "train") for i in range(601))
    dataset = replace(from_images([Image.new("RGB", (8, 8))], ["a"]), items=items)
    zeros = np.zeros((601, 1))
    features = Features({"features": values}, zeros, zeros, zeros, np.arange(601), (), None, 0, 0, {})
    exact = [one.files for one in find_outliers(dataset, features, np.arange(601))]
    assert len(exact) == 1
    monkeypatch.setattr(nearest, "LIMIT", 100)
    monkeypatch.setattr(clusters, "LIMIT", 150)
    searched = []
    neighbours = labels.nearest_neighbours
    monkeypatch.setattr(
        labels, "nearest_neighbours", lambda *a, **k: searched.append(k["images"]) or neighbours(*a, **k)
    )
    found = [one.files for one in find_outliers(dataset, features, np.arange(601))]
    assert found == exact
    assert len(searched[1]) > 10  # called outliers by the part alone


def test_a_poor_image_is_not_called_an_outlier_as_well(photos):
    black = image_path(photos, number=8)
    Image.new("RGB", (200, 200), (2, 2, 2)).save(black)
    findings = findings_by_kind(photos)
    assert findings["empty"] == findings["dark"] == [{str(black)}]
    assert {str(black)} not in findings["outlier"]


def test_an_empty_frame_is_not_called_a_wrong_label(photos, monkeypatch):
    rng = np.random.default_rng(0)
    frames = [image_path(photos, label=label, number=n) for label in ("horses", "humans") for n in (3, 9, 15)]
    for i, frame in enumerate(frames):
        Image.fromarray(np.clip(rng.normal(60 + 25 * i, 3, (200, 200, 3)), 0, 255).astype(np.uint8)).save(frame)
    empty = {str(frame) for frame in frames}
    findings = findings_by_kind(photos)
    assert set.union(*findings["empty"]) == empty
    assert empty.isdisjoint(set().union(*findings["label_issue"]))
    monkeypatch.setattr(check_module, "HIDES_CLASS", ())
    assert empty & set().union(*findings_by_kind(photos)["label_issue"])


def test_a_set_of_one_image_in_two_classes_is_checked():
    """All are in one group, so that no head can be judged; the conflict is found all the same."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    result = check_dataset(from_images([image, image], ["a", "b"]), cache=None)
    found = [(finding.kind, len(finding.files)) for finding in result.findings]
    assert ("conflicting_labels", 2) in found
    assert "label_issue" not in dict(found)


def test_a_set_without_readable_images_is_an_error(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="None of the 1 images"):
        check_dataset(open_dataset(tmp_path))


def test_unlabelled_images_can_be_checked(clean):
    paths = [str(p) for p in sorted((clean / "train" / "horses").iterdir())[:6]]
    kinds = {f.kind for f in check_dataset(from_images([*paths, paths[0]])).findings}
    assert kinds <= {"exact_duplicate", "near_duplicate", "blurred", "grey"}
    assert "exact_duplicate" in kinds


def test_the_command_prints_json_or_text_and_is_strict_on_request(photos, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["headstart", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            main()
        return exit_info.value.code or 0, *capsys.readouterr()

    original = image_path(photos, number=2)
    duplicate = shutil.copy(original, original.with_name("\x1b[31mred.jpg"))
    status, out, err = run("check", photos, "--json", "--fix-list", photos / "fix.csv")
    findings = json.loads(out)["findings"]
    assert status == 0
    assert "headstart fit" in err
    status, _, err = run("check", photos, "--report", photos / "page.html")
    assert (status, err.splitlines()[-1]) == (0, f"{photos / 'page.html'} shows the findings; open it in a browser")
    assert "Headstart check" in (photos / "page.html").read_text("utf-8")
    assert run("check", photos, "--report", photos / "page.txt")[0] == 2
    assert {"kind", "files", "certainty", "confidence", "action"} <= set(findings[0])
    assert [set(f["files"]) for f in findings if f["kind"] == "exact_duplicate"] == [{str(original), str(duplicate)}]
    image_path(photos, number=9).write_bytes(b"broken")
    status, out, _ = run("check", photos, "--strict", "--quiet")
    assert status == 1
    assert "\x1b" not in out
    assert "exact duplicate: 1" in out
    assert "\n  certain " in out
    assert "unreadable: 1" in out


def test_nothing_needs_scipy(clean):
    code = (
        "import sys\nsys.modules['scipy'] = None\n"
        "from headstart.check import check_dataset\nfrom headstart.data import open_dataset\n"
        "from headstart.features import Compute\ncheck_dataset(open_dataset(sys.argv[1]), Compute('onnxruntime'))"
    )
    subprocess.run([sys.executable, "-c", code, clean], check=True)
