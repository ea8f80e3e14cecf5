"""Label issues where images have several labels: each cell by itself, against a plain loop and planted errors."""

import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.labels import write_labelled
from hypothesis import given
from hypothesis import strategies as st

from headstart.check import Finding, check_dataset, write_table
from headstart.check.cells import MIN_RATIO, MIN_SHARE, not_recognised, suspect_cells
from headstart.data import Item, open_dataset
from headstart.data.dataset import Dataset
from headstart.data.reading import ReadOptions
from headstart.features import Compute
from headstart.report.check_page import write_check_page

MULTI = ReadOptions(multi_label=True)


def suspects_by_loop(values, known, probabilities):
    """Confident learning of each label, cell by cell; and which of them are likely."""
    n, k = values.shape
    suspect, likely = np.zeros((n, k), bool), np.zeros((n, k), bool)
    for c in range(k):
        rows = [i for i in range(n) if known[i, c]]
        said = [i for i in rows if probabilities[i, c] >= 0.5]
        right = sum(values[i, c] for i in said)
        share = min(right / max(len(said), 1), right / max(sum(values[i, c] for i in rows), 1))
        for holds in (True, False):
            chance = {i: probabilities[i, c] if holds else 1 - probabilities[i, c] for i in rows}
            own = [i for i in rows if values[i, c] == holds]
            others = [i for i in rows if values[i, c] != holds]
            mean = np.mean([chance[i] for i in own]) if own else 0.0
            sure = {i for i in rows if chance[i] >= max(mean, 0.5)}
            doubtful = {i for i in rows if chance[i] > 0.5} - sure
            contradicting, agreeing = (
                (sum(i in sure for i in of) + 0.5) / (sum(i in doubtful for i in of) + 0.5) for of in (others, own)
            )
            for i in others:
                suspect[i, c] |= i in sure and chance[i] > 0.5
                likely[i, c] |= (
                    i in sure and chance[i] > 0.5 and share >= MIN_SHARE and contradicting >= MIN_RATIO * agreeing
                )
    return suspect, likely


@given(st.integers(0, 2**32 - 1), st.floats(0, 6), st.floats(0, 0.4))
def test_suspects_are_those_of_a_plain_loop(seed, strength, unknown):
    rng = np.random.default_rng(seed)
    values = rng.random((40, 3)) < (0.5, 0.2, 0.05)
    known = rng.random((40, 3)) >= unknown
    probabilities = 1 / (1 + np.exp(-strength * (2 * values - 1) - 2 * rng.normal(size=(40, 3))))
    probabilities[~known] = np.nan
    found = suspect_cells(values, known, probabilities)
    suspect, likely = suspects_by_loop(values, known, probabilities)
    assert (found.is_suspect == suspect).all()
    assert (found.is_likely == likely).all()
    assert not (found.is_suspect & ~known).any()


def test_suspects_are_likely_where_the_label_is_recognised():
    rng = np.random.default_rng(0)
    truth = rng.random((400, 2)) < 0.4
    values = truth.copy()
    values[:8] = ~truth[:8]
    noise = rng.normal(size=(400, 2)) * (0.7, 3.0)  # of a label that is recognised, and of one that is hardly
    probabilities = 1 / (1 + np.exp(-4 * (2 * truth - 1) - noise * 2))
    found = suspect_cells(values, np.ones_like(values), probabilities)
    assert found.is_likely[:8, 0].sum() >= 3
    assert not found.is_likely[8:, 0].any()
    assert found.is_suspect[:, 1].any()
    assert not found.is_likely[:, 1].any()
    said = probabilities >= 0.5
    for c in range(2):
        right = sum(bool(a and b) for a, b in zip(said[:, c], values[:, c], strict=True))
        assert found.found[c] == right / sum(values[:, c])
        assert found.precise[c] == right / sum(said[:, c])
    assert min(found.found[0], found.precise[0]) >= MIN_SHARE > min(found.found[1], found.precise[1])


PLANTED = {3: "disc", 10: "square", 20: "stripes", 31: "disc", 47: "stripes", 60: "square"}


def turned(row, name):
    """A row of the table of whose labels one is added, or removed where it is there."""
    path, labels, split = row.split(",")
    names = {label for label in labels.split(";") if label} ^ {name}
    return f"{path},{';'.join(sorted(names))},{split}"


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A table of 120 images in which six cells are wrong, with two copies of one image, one of other labels."""
    folder = tmp_path_factory.mktemp("planted")
    rows = write_labelled(folder, 120)
    for number, name in PLANTED.items():
        rows[number] = turned(rows[number], name)
    for copy, row in (("other", turned(rows[7], "disc")), ("same", rows[8]), ("unknown", None)):
        source = 7 if copy != "same" else 8
        (folder / f"{copy}.png").write_bytes((folder / f"train_{source:03}.png").read_bytes())
        rows.append(f"{copy}.png,?,train" if row is None else f"{copy}.png,{row.split(',', 1)[1]}")
    rows[-1] = (
        "unknown.png,?disc;" + ";".join(n for n in rows[7].split(",")[1].split(";") if n not in ("", "disc")) + ",train"
    )
    (folder / "labels.csv").write_text("\n".join(["path,labels,split", *rows]), "utf-8")
    dataset = open_dataset(folder / "labels.csv", MULTI)
    return dataset, check_dataset(dataset, Compute("onnxruntime"), backbone="headstart-s"), folder


def test_planted_cells_are_found_with_their_label_and_what_is_wrong(planted):
    dataset, result, _ = planted
    labels = {item.path: item.labels for item in dataset.items}
    issues = {
        (finding.files[0], finding.suggested_label): finding
        for finding in result.findings
        if finding.kind == "label_issue"
    }
    wrong = {(f"train_{number:03}.png", name) for number, name in PLANTED.items()}
    assert len(wrong & {*issues}) >= 5
    assert len({*issues} - wrong) <= 3
    for (path, name), finding in issues.items():
        holds = name in labels[path]
        assert finding.state == ("wrong" if holds else "missing")
        verb = "is probably" if finding.certainty == "likely" else "may be"
        assert finding.why.startswith(f"{name} {verb} {finding.state} here: predicted with probability ")
        assert finding.action == (f"review: remove {name}?" if holds else f"review: add {name}?")
        value = finding.to_dict()
        assert (value["label"], value["state"]) == (name, finding.state)
    assert all("label" not in finding.to_dict() for finding in result.findings if finding.kind != "label_issue")


def test_labels_that_are_not_recognised_are_named_with_what_that_means(planted):
    """A label that was given at random, beside those of the pictures."""
    dataset, before, folder = planted
    assert not any("Not well recognised" in note for note in before.notes)
    rng = np.random.default_rng(0)
    items = tuple(
        replace(item, labels=tuple(sorted((*item.labels, *(["<b>"] if rng.random() < 0.5 else [])))))
        for item in dataset.items
    )
    noisy = replace(dataset, items=items, label_names=("<b>", *dataset.label_names))
    result = check_dataset(noisy, Compute("onnxruntime"), backbone="headstart-s")
    (note,) = [note for note in result.notes if "Not well recognised" in note]
    shares = r"none of its images is found|(\d+)% of its images are found, (\d+)% of those predicted to have it do"
    found = re.fullmatch(
        "Findings for one label are only possible, never likely, since images that the model cannot tell apart look "
        rf"like wrong labels\. Not well recognised: <b> \(({shares})\)\.",
        note,
    )
    assert min(int(share or 0) for share in found.groups()[1:]) < 75
    own = [finding for finding in result.findings if finding.suggested_label == "<b>"]
    assert len(own) >= 10
    assert {finding.certainty for finding in own} == {"possible"}
    page = write_check_page(noisy, result, folder / "noisy.html").read_text("utf-8")
    assert "Not well recognised: &lt;b&gt; (" in page


def finding(label):
    return Finding("label_issue", ("a.png",), "possible", 0.5, "", "", label, "missing")


def test_only_labels_with_findings_are_named_the_worst_first_and_no_share_is_rounded_up():
    shares = {"a": (0.8999, 0.95), "b": (1.0, 0.5), "c": (0.0, 0.0), "d": (0.9, 0.9), "e": (0.1, 1.0)}
    (note,) = not_recognised([finding("b"), finding("a"), finding("d"), finding("a")], shares)
    assert "Findings for 2 labels are only possible" in note
    assert note.endswith(
        "Not well recognised: b (100% of its images are found, 50% of those predicted to have it do), "
        "a (89% of its images are found, 95% of those predicted to have it do)."
    )
    (note,) = not_recognised(map(finding, "abce"), shares)
    assert "4 labels" in note
    assert "c (none of its images is found), e (10% of" in note
    assert note.endswith(" and 1 more.")
    assert not_recognised([finding("d")], shares) == []
    assert not_recognised([], shares) == []


def test_copies_conflict_where_labels_that_are_known_differ(planted):
    _, result, _ = planted
    conflicts = [finding for finding in result.findings if finding.kind == "conflicting_labels"]
    assert [{*finding.files} for finding in conflicts] == [{"train_007.png", "other.png", "unknown.png"}]
    assert conflicts[0].why.startswith("the same file labelled [")
    assert conflicts[0].why.endswith(", which differ in disc")
    same = [finding.files for finding in result.findings if finding.kind == "exact_duplicate"]
    assert [{*files} for files in same] == [{"train_008.png", "same.png"}]


def test_what_is_not_known_contradicts_nothing(tmp_path):
    rows = write_labelled(tmp_path, 12)
    (tmp_path / "copy.png").write_bytes((tmp_path / "train_001.png").read_bytes())
    held = rows[1].split(",")[1]
    for cell, count in (("?", 0), (f"{held};?", 0), (";".join(f"?{n}" for n in ("disc", "square", "stripes")), 0)):
        (tmp_path / "labels.csv").write_text("\n".join(["path,labels,split", *rows, f"copy.png,{cell},train"]), "utf-8")
        result = check_dataset(open_dataset(tmp_path / "labels.csv", MULTI), Compute("onnxruntime"))
        assert sum(finding.kind == "conflicting_labels" for finding in result.findings) == count, cell


def test_nothing_to_learn_from_gives_no_issue(tmp_path):
    """One group, a label that all images have, one that is known of few."""
    rows = [row.split(",") for row in write_labelled(tmp_path, 14)]
    all_have = [f"{path},always;{'x' if i < 3 else '?x'},,{'a' if i else 'b'}" for i, (path, *_) in enumerate(rows)]
    one_group = [f"{path},{labels},,a" for path, labels, _ in rows]
    for lines in (all_have, one_group):
        (tmp_path / "labels.csv").write_text("\n".join(["path,labels,split,group", *lines]), "utf-8")
        dataset = open_dataset(tmp_path / "labels.csv", MULTI)
        kinds = {finding.kind for finding in check_dataset(dataset, Compute("onnxruntime")).findings}
        assert "label_issue" not in kinds


def test_small_labels_are_named(tmp_path):
    rows = write_labelled(tmp_path, 30)
    rows[0] = rows[0].replace(",", ",rare;", 1)
    (tmp_path / "labels.csv").write_text("\n".join(["path,labels,split", *rows]), "utf-8")
    result = check_dataset(open_dataset(tmp_path / "labels.csv", MULTI), Compute("onnxruntime"))
    small = [finding.why for finding in result.findings if finding.kind == "empty_class"]
    assert "rare has too few images in train: 1" in small
    assert not any(finding.kind == "imbalance" for finding in result.findings)


def cells_of(dataset):
    return [(i.path, {*i.labels}, {*i.unknown}, i.is_rest_unknown) for i in sorted(dataset.items, key=lambda i: i.path)]


@pytest.mark.parametrize(
    "names",
    [("disc", "square"), ("a;b", "c|d"), ("[x]", "y"), ("=1+1", "'q"), ("ä, ö", 'say "so"'), ("line\nbreak", "z")],
)
def test_the_table_keeps_every_label_present_absent_and_unknown(tmp_path, names):
    write_labelled(tmp_path, 6)
    first, second = names
    cells = [((first,), (), False), ((), (first,), False), ((), (), False), ((first, second), (), False)]
    cells += [((second,), (first,), False), ((second,), (), True)]
    items = tuple(
        Item(
            f"train_{i:03}.png",
            None,
            "train",
            key=i,
            labels=tuple(sorted(present)),
            unknown=unknown,
            is_rest_unknown=rest,
        )
        for i, (present, unknown, rest) in enumerate(cells)
    )
    dataset = Dataset("x", items, (), (), (), lambda key: b"", str(tmp_path), label_names=tuple(sorted(names)))
    table = tmp_path / "fixed.csv"
    assert write_table(dataset, [], {item.path: i for i, item in enumerate(items)}, table) == 6
    again = open_dataset(table, MULTI)
    assert cells_of(again) == cells_of(dataset)
    assert again.label_names == dataset.label_names


def test_a_plain_table_has_plain_cells(planted):
    dataset, result, folder = planted
    table = folder / "fixed.csv"
    write_table(dataset, result.findings, result.groups, table)
    rows = {row["path"]: row for row in csv.DictReader(io.StringIO(table.read_text("utf-8")))}
    for item in dataset.items:
        parts = [part for part in rows[item.path]["labels"].split(";") if part]
        assert parts == [*sorted(item.labels), *(f"?{name}" for name in item.unknown)]
    table.unlink()


def test_the_page_names_each_cell(planted):
    dataset, result, folder = planted
    page = write_check_page(dataset, result, folder / "page.html").read_text("utf-8")
    assert "headstart fit corrections.csv --multi-label" in page
    assert "missing here: predicted with probability" in page
