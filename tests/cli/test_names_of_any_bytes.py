"""Folders, images, models and caches whose names are no UTF-8: found, named the same everywhere, and found again."""

import csv
import json
import os
import re
import shutil
import sys
import tarfile

import pytest

from headstart.files import unescape_name

LATIN = os.fsdecode(b"caf\xe9\\")
SHOWN = "caf\\xe9\\\\"  # as JSON and tables name it

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names are bytes on Linux")


@pytest.fixture
def data(photos, tmp_path):
    folder = tmp_path / f"data{LATIN}"
    for split in ("train", "validation"):
        for name in ("disc", "stripes"):
            (folder / split / f"{name}{LATIN}").mkdir(parents=True)
            for image in sorted((photos / split / name).iterdir())[:6]:
                shutil.copy(image, folder / split / f"{name}{LATIN}" / f"{LATIN}{image.name}")
    (folder / "train" / f"disc{LATIN}" / f"damaged{LATIN}.jpg").write_bytes(b"x")
    longest = f"{LATIN}{'x' * 246}.jpg"
    assert len(os.fsencode(longest)) == 255
    shutil.copy(photos / "train" / "disc" / "007.jpg", folder / "train" / f"disc{LATIN}" / longest)
    return folder


def rows(text):
    return list(csv.DictReader(text.splitlines(), strict=True))


def test_everything_that_is_written_names_the_same_bytes(run, data, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / f"cache{LATIN}"))
    model = tmp_path / f"model{LATIN}"
    status, out, err = run("fit", data, "-o", model, "--json")
    assert status == 0, err
    assert (tmp_path / f"cache{LATIN}" / "features-v2.sqlite").exists()
    assert json.loads(out)["classes"] == [f"disc{SHOWN}", f"stripes{SHOWN}"]
    for name in ("config.json", "run.json", "report.json", "README.md", "report.html", "skipped.csv"):
        assert b"\\udc" not in (model / name).read_bytes()  # valid text of Unicode for every reader
    damaged = data / "train" / f"disc{LATIN}" / f"damaged{LATIN}.jpg"
    assert [unescape_name(row["path"]) for row in rows((model / "skipped.csv").read_text("utf-8"))] == [str(damaged)]

    images = sorted((data / "train" / f"disc{LATIN}").iterdir())
    status, out, _ = run("predict", model, *images, "--json")
    answers = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert [unescape_name(answer["path"]) for answer in answers] == [str(image) for image in images]
    assert {answer["classes"][0]["class"] for answer in answers if "classes" in answer} == {f"disc{SHOWN}"}
    status, out, _ = run("predict", model, *images, "--csv")
    assert [unescape_name(row["path"]) for row in rows(out)] == [str(image) for image in images]
    status, out, _ = run("evaluate", model, data, "--json")
    assert json.loads(out)["accuracy"]["value"] > 0.5  # the classes of the model are those of the folders


def test_a_table_to_correct_is_read_again(run, data, tmp_path):
    table, page = data / "fix.csv", data / "page.html"
    assert run("check", data, "--fix-list", table, "--report", page)[0] == 0
    content = re.search(r'id="check-data">(.*?)</script>', page.read_text("utf-8"), re.S)[1]
    of_page = json.loads(content)["table"]  # which the page saves
    lines = [of_page["header"], *(",".join(cells) + "\n" for cells in of_page["rows"])]
    assert "".join(lines) == table.read_text("utf-8")
    paths = {data / unescape_name(row["path"]) for row in rows(table.read_text("utf-8"))}
    assert paths == {path for path in data.rglob("*.jpg") if "damaged" not in path.name}
    status, out, err = run("fit", table, "-o", tmp_path / "m", "--json", "--no-report")
    assert status == 0, err
    assert json.loads(out)["classes"] == [f"disc{SHOWN}", f"stripes{SHOWN}"]
    assert json.loads(out)["images"]["train"] == 13


def test_an_archive_with_such_names_is_read_the_same(run, data, tmp_path):
    archive = tmp_path / "data.tar"
    with tarfile.open(archive, "w") as stream:
        stream.add(data, ".")
    results = [
        json.loads(run("fit", source, "-o", tmp_path / name, "--json")[1])
        for source, name in ((data, "a"), (archive, "b"))
    ]
    assert results[0]["accuracy"] == results[1]["accuracy"]
    assert results[0]["images"]["train"] == results[1]["images"]["train"] == 13
