"""The page of a check: the table that it can save is that of ``--fix-list``; what it cannot hold is said."""

import json
import re

import pytest
from helpers.photos import write_photos

from headstart.check import check_dataset, write_table
from headstart.data import open_dataset
from headstart.errors import OptionError
from headstart.features import Compute
from headstart.report import check_page
from headstart.report.check_page import write_check_page


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A dataset with a copy in each split, a wrong label and an unreadable file, and its check."""
    folder = tmp_path_factory.mktemp("checked")
    data = write_photos(folder / "data" / "train", 10)
    write_photos(folder / "data" / "validation", 4, seed=1)
    (data / "disc" / "twin.jpg").write_bytes((data / "disc" / "000.jpg").read_bytes())
    (data / "disc" / "wrong.jpg").write_bytes((data / "stripes" / "003.jpg").read_bytes())
    (data / "disc" / "broken.jpg").write_bytes(b"no image")
    dataset = open_dataset(folder / "data")
    return dataset, check_dataset(dataset, Compute("onnxruntime"), backbone="headstart-s"), folder


def page_data(page):
    return json.loads(re.search(r'id="check-data">(.*?)</script>', page.read_text("utf-8"), re.S)[1])


def test_the_table_of_the_page_is_that_of_the_fix_list(checked, tmp_path):
    dataset, result, folder = checked
    page = write_check_page(dataset, result, folder / "page.html")
    table = page_data(page)["table"]
    write_table(dataset, result.findings, result.groups, folder / "fixed.csv")
    lines = [table["header"], *(",".join(cells) + "\n" for cells in table["rows"])]
    assert "".join(lines) == (folder / "fixed.csv").read_text("utf-8")
    assert table["labels"] == ["disc", "stripes"]


def test_every_finding_is_on_the_page_with_its_images(checked):
    dataset, result, folder = checked
    data = page_data(write_check_page(dataset, result, folder / "page.html"))
    shown = [(kind["kind"], finding) for kind in data["kinds"] for finding in kind["findings"]]
    assert sorted((kind, finding["why"]) for kind, finding in shown) == sorted((f.kind, f.why) for f in result.findings)
    rows = [cells[0] for cells in data["table"]["rows"]]
    for image in data["images"]:
        is_broken = image["path"].endswith("broken.jpg")
        assert image["jpeg"].startswith("data:image/jpeg;base64,") != is_broken
        assert (image["row"] == -1) == is_broken
        assert is_broken or image["path"].endswith(rows[image["row"]].removeprefix("data/"))
        assert is_broken or image["label"] == image["path"].split("/")[-2]
    duplicate = next(finding for kind, finding in shown if kind == "exact_duplicate")
    assert [data["images"][i]["path"].split("/")[-1] for i in duplicate["images"]] == ["000.jpg", "twin.jpg"]


def test_images_without_findings_come_after_those_with_and_are_limited(checked, monkeypatch):
    dataset, result, folder = checked
    data = page_data(write_check_page(dataset, result, folder / "page.html"))
    in_findings = {file for finding in result.findings for file in finding.files}
    paths = [image["path"] for image in data["images"]]
    assert len(set(paths)) == len(paths)
    assert set(paths) == {item.path for item in dataset.items} | in_findings
    assert set(paths[: data["firstOther"]]) == in_findings
    assert all(image["row"] >= 0 and image["jpeg"] for image in data["images"][data["firstOther"] :])
    monkeypatch.setattr(check_page, "MAX_OTHERS", 3)
    monkeypatch.setattr(check_page, "MAX_OTHER_PREVIEWS", 1)
    page = write_check_page(dataset, result, folder / "page.html")
    others = page_data(page)["images"][data["firstOther"] :]
    assert [bool(image["jpeg"]) for image in others] == [True, False, False]
    hidden = len(paths) - data["firstOther"] - 3
    assert f"{hidden} more images without findings are not on this page" in page.read_text("utf-8")


def test_images_of_findings_beyond_the_limits_are_not_among_those_without(checked, monkeypatch):
    dataset, result, folder = checked
    in_findings = {file for finding in result.findings for file in finding.files}
    monkeypatch.setattr(check_page, "MAX_FINDINGS", 1)
    monkeypatch.setattr(check_page, "MAX_FILES", 1)
    data = page_data(write_check_page(dataset, result, folder / "page.html"))
    paths = [image["path"] for image in data["images"]]
    assert paths[: data["firstOther"]] == [result.findings[0].files[0]]
    assert set(paths[1:]) == {item.path for item in dataset.items} - in_findings
    assert len(in_findings) >= 3


@pytest.mark.parametrize("previews", [0, 3, 1_000])
def test_images_without_a_preview_are_counted(checked, monkeypatch, previews):
    """Those of the unreadable file, and of others beyond the limit."""
    dataset, result, folder = checked
    monkeypatch.setattr(check_page, "MAX_OTHER_PREVIEWS", previews)
    page = write_check_page(dataset, result, folder / "page.html")
    data = page_data(page)
    without = 1 + max(0, len(data["images"]) - data["firstOther"] - previews)
    assert sum(not image["jpeg"] for image in data["images"]) == without
    noun = "1 image has" if without == 1 else f"{without} images have"
    assert f">{noun} no preview: a file could not be read, or" in page.read_text("utf-8")


def test_a_label_issue_suggests_the_other_class(checked):
    _, result, _ = checked
    issues = [finding for finding in result.findings if finding.kind == "label_issue"]
    for finding in issues:
        assert f"predicted {finding.suggested_label}" in finding.why
    assert all(finding.suggested_label == "" for finding in result.findings if finding not in issues)


def test_a_page_that_cannot_name_the_images_says_so(checked, tmp_path, monkeypatch):
    dataset, result, folder = checked
    page = write_check_page(dataset, result, tmp_path / "elsewhere.html")
    assert page_data(page)["table"] is None
    assert "write it to the folder of the images or one above it" in page.read_text("utf-8")
    assert 'id="save"' not in page.read_text("utf-8")
    monkeypatch.setattr(check_page, "MAX_TABLE", 10)
    page = write_check_page(dataset, result, folder / "page.html")
    assert page_data(page)["table"] is None
    assert "More than 10 images: use headstart check --fix-list" in page.read_text("utf-8")
    monkeypatch.setattr(check_page, "MAX_FINDINGS", 1)
    monkeypatch.setattr(check_page, "THUMBNAILS_BYTES", 0)
    text = write_check_page(dataset, result, folder / "page.html").read_text("utf-8")
    assert f"shows the first 1 findings; {len(result.findings) - 1} more" in text
    assert "images have no preview" in text


@pytest.mark.parametrize("name", ["nan", "null", "?x"])
@pytest.mark.parametrize("is_multi_label", [False, True])
def test_a_page_saves_no_table_of_a_label_that_a_reader_takes_for_something_else(tmp_path, name, is_multi_label):
    data = write_photos(tmp_path / "data", 4)
    (data / "disc").rename(data / name)
    if is_multi_label:
        images = sorted(data.glob("*/*.jpg"))
        rows = [f"{path.relative_to(tmp_path).as_posix()},{int(path.parent.name == name)},1" for path in images]
        (tmp_path / "labels.csv").write_text("\n".join([f"path,{name},photo", *rows]), "utf-8")
    dataset = open_dataset(tmp_path / "labels.csv" if is_multi_label else data)
    assert name in (dataset.label_names if is_multi_label else dataset.classes)
    result = check_dataset(dataset, Compute("onnxruntime"), backbone="headstart-s")
    page = write_check_page(dataset, result, tmp_path / "page.html")
    assert page_data(page)["table"] is None
    what = "label" if is_multi_label else "class"
    assert f"could not name the {what} &#39;{name}&#39;, which means something else" in page.read_text("utf-8")


def test_no_file_of_another_program_is_replaced(checked, tmp_path):
    dataset, result, _ = checked
    (tmp_path / "thesis.html").write_text("my thesis")
    with pytest.raises(OptionError, match="is not a report of Headstart"):
        write_check_page(dataset, result, tmp_path / "thesis.html")
    with pytest.raises(OptionError, match=r"does not end in \.html"):
        write_check_page(dataset, result, tmp_path / "page.csv")
    assert (tmp_path / "thesis.html").read_text() == "my thesis"
