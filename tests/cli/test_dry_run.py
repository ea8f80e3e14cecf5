"""``headstart fit --dry-run``: how data are read and what a fit would take, and nothing written."""

import json
import os
import shutil

import pytest
from helpers.photos import write_photos


def snapshot(folder):
    return sorted((path.relative_to(folder).as_posix(), path.stat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_dry_run_says_how_data_are_read_and_writes_nothing(run, photos, tmp_path, monkeypatch, cache):
    data = shutil.copytree(photos, tmp_path / "data")
    (data / "notes.txt").write_text("notes")
    (data / "train" / "disc" / "more.psd").write_bytes(b"8BPS")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    before = snapshot(data)
    status, out, err = run("fit", data, "--dry-run")
    assert (status, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "Read as split/class/image" in lines
    assert "Images 28 train, 12 validation" in lines
    assert "Endings .jpg (40)" in lines
    assert "disc 14 6" in lines
    assert "stripes 14 6" in lines
    assert f"Skipped 2 files (not an image): {data}/notes.txt, {data}/train/disc/more.psd" in lines
    assert "endings that are not read: .txt (1), .psd (1)" in lines
    assert any(line.startswith("Time about ") and "40 images (by a trial of 8)" in line for line in lines)
    assert any(line.startswith("Memory about ") for line in lines)
    assert snapshot(data) == before
    assert not os.listdir(work)  # noqa: PTH208
    assert not cache.exists()


def test_a_dry_run_as_json(run, photos, tmp_path):
    status, out, _ = run("fit", photos, "--dry-run", "--json", "-o", tmp_path / "model")
    value = json.loads(out)
    assert status == 0
    assert value["layout"] == "split/class/image"
    assert value["images"] == {"train": 28, "validation": 12}
    assert value["classes"] == [
        {"class": "disc", "train": 14, "validation": 6},
        {"class": "stripes", "train": 14, "validation": 6},
    ]
    assert value["endings"] == {"read": {".jpg": 40}, "skipped": {}}
    assert (value["groups"], value["skipped"], value["quarantined"], value["notes"]) == (None, {}, [], [])
    assert value["cost"]["images"] == 40
    assert value["cost"]["trial"] == 8
    assert value["cost"]["seconds"] > 0
    assert not (tmp_path / "model").exists()


def test_the_memory_grows_with_the_images_by_their_features(run, tmp_path):
    def cost(data, *options):
        return json.loads(run("fit", data, "--dry-run", "--json", *options)[1])["cost"]["bytes"]

    from headstart import backbones

    channels = sum(tap.channels for tap in backbones.load(backbones.DEFAULT_BACKBONE).taps)
    small, large = write_photos(tmp_path / "small", 4), write_photos(tmp_path / "large", 10)
    assert cost(large) - cost(small) == 12 * (2 * channels + 768 + 16 + 32)
    assert cost(small, "--views", "3") - cost(small) == 8 * 2 * 2 * channels


def test_groups_of_a_table_and_a_share_for_validation(run, tmp_path):
    write_photos(tmp_path, 3)
    rows = [f"{name}/00{i}.jpg,{name},{group}" for name in ("disc", "stripes") for i, group in enumerate("aab")]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,group", *rows, "disc/000.jpg,,c"]), "utf-8")
    status, out, err = run("fit", tmp_path / "t.csv", "--dry-run", "--json", "--validation", "0.5")
    value = json.loads(out)
    assert status == 0
    assert value["groups"] == {"count": 2, "largest": 4, "method": "column"}
    assert value["skipped"] == {"no label": 1}
    assert value["skipped_files"] == {"no label": ["disc/000.jpg"]}
    assert "holds out 50% of the groups" in err
    _, out, _ = run("fit", tmp_path / "t.csv", "--dry-run", "--json", "--group-by", "none")
    assert json.loads(out)["groups"] == {"count": 6, "largest": 1, "method": "none"}


def test_what_a_fit_refuses_is_refused(run, photos, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("mine")
    for arguments, message in (
        ((photos, "-o", tmp_path / "taken"), "holds files that are not a Headstart model"),
        ((photos, "--validation", "0.2"), "validation images of its own"),
        ((tmp_path / "nothing",), "There is no"),
        ((photos, "--backbone", "unheard-of"), "Unknown backbone"),
    ):
        status, out, err = run("fit", *arguments, "--dry-run")
        assert (status, out) == (2, "")
        assert message in err


def test_a_backbone_that_is_not_prepared_is_neither_downloaded_nor_exported(run, photos, cache):
    status, out, err = run("fit", photos, "--dry-run", "--json", "--backbone", "timm:mobilenetv2_100")
    assert status == 0
    assert json.loads(out)["cost"] is None
    assert "timm:mobilenetv2_100 is not prepared yet" in err
    assert not cache.exists()


def test_images_of_the_trial_that_cannot_be_read_are_told(run, tmp_path):
    (tmp_path / "t.csv").write_text("path,label\na/1.jpg,a\nb/1.jpg,b\n")
    status, out, err = run("fit", tmp_path / "t.csv", "--dry-run", "--json")
    assert (status, json.loads(out)["cost"]) == (0, None)
    assert "2 of 2 images tried could not be read: a/1.jpg: Cannot be read: No such file" in err
