"""Planted faults are found, clean sets are left alone, and the table leads back to a fit."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

import headstart as hs
from headstart.check import KINDS, check, write_table
from headstart.check.duplicates import ROUGHLY, _integral, _squares, best_places, inside
from headstart.data import from_images, open_dataset
from headstart.data.rendered import render
from headstart.errors import DataError, OptionError
from headstart.images.thumbnail import image_stats, sharpness, shrink, square_thumbnail, tiny_image
from headstart.splits.groups import nearest_neighbours


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean") / "set"
    render("horses-or-humans", folder, train=96, validation=24, seed=5)
    (folder / "README.md").unlink()
    return folder


@pytest.fixture
def photos(clean, tmp_path):
    return Path(shutil.copytree(clean, tmp_path / "photos"))


def first(photos, split="train", kind="horses", number=0):
    return sorted((photos / split / kind).iterdir())[number]


def edit(path, change, to=None, **options):
    with Image.open(path) as image:
        changed = change(image.convert("RGB"))
    target = to or path
    changed.save(target, **({"quality": 90} | options))
    return str(target)


def found(photos):
    listed = check(open_dataset(photos), runtime="onnxruntime").findings
    assert all(f.kind in KINDS and 0 <= f.confidence <= 1 and f.action and f.why for f in listed)
    return {kind: [set(f.files) for f in listed if f.kind == kind] for kind in KINDS}


def test_a_clean_set_is_left_alone(clean):
    told = found(clean)
    assert sum(map(len, told.values())) <= 3  # a suspect or two: figures may be odd
    for kind in ("leak", "conflicting_labels", "exact_duplicate", "near_duplicate", "unreadable", "tiny", "dark"):
        assert told[kind] == [], kind


def crop(image):
    width, height = image.size
    return image.crop((width // 8, height // 10, width * 7 // 8, height * 9 // 10))


COPIES = {
    "re-encoded": (lambda image: image, {"quality": 45}),
    "mirrored": (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), {}),
    "resized": (lambda image: image.resize((image.width // 2, image.height // 2)), {}),
    "cropped": (crop, {}),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies(photos, kind):
    change, options = COPIES[kind]
    original = first(photos, number=7)
    copy = edit(original, change, original.with_name("copy.jpg"), **options)
    told = found(photos)
    assert {str(original), copy} in told["near_duplicate"]
    assert told["exact_duplicate"] == told["leak"] == told["conflicting_labels"] == []


def test_the_same_file_leaks_conflicts_and_doubles(photos):
    one, two, three = (first(photos, number=n) for n in (1, 2, 3))
    double = shutil.copy(one, one.with_name("again.jpg"))
    leak = shutil.copy(two, photos / "validation" / "horses" / "seen.jpg")
    conflict = shutil.copy(three, photos / "train" / "humans" / "other.jpg")
    told = found(photos)
    assert told["exact_duplicate"] == [{str(one), str(double)}]
    assert told["leak"] == [{str(two), str(leak)}]
    assert told["conflicting_labels"] == [{str(three), str(conflict)}]


def test_a_mirrored_picture_in_the_other_split_is_a_leak(photos):
    original = first(photos, number=4)
    copy = edit(original, COPIES["mirrored"][0], photos / "validation" / "horses" / "seen.jpg")
    assert {str(original), copy} in found(photos)["leak"]


LOOKS = {
    "dark": lambda image: image.point(lambda value: value // 12),
    "bright": lambda image: image.point(lambda value: 245 + value // 30),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(6)),
    "tiny": lambda image: image.resize((20, 20)),
    "odd_shape": lambda image: image.resize((400, 100)),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("kind", LOOKS)
def test_looks(photos, kind):
    changed = edit(first(photos, number=5), LOOKS[kind])
    assert found(photos)[kind] == [{changed}]


def test_flipped_labels_broken_files_and_foreign_pictures(photos):
    flipped = [first(photos, number=n).rename(photos / "train" / "humans" / f"flipped{n}.jpg") for n in (0, 11, 22)]
    broken = first(photos, number=8)
    broken.write_bytes(broken.read_bytes()[:900])
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    foreign = photos / "train" / "horses" / "foreign.png"
    Image.fromarray(noise).resize((200, 200), Image.Resampling.NEAREST).save(foreign)
    told = found(photos)
    assert sum({str(path)} in told["label_suspect"] for path in flipped) >= 2
    assert told["unreadable"] == [{str(broken)}]
    assert {str(foreign)} in told["outlier"]


def test_classes_that_are_empty_or_small(photos):
    for path in sorted((photos / "train" / "humans").iterdir())[4:]:
        path.unlink()
    shutil.rmtree(photos / "validation" / "humans")
    listed = check(open_dataset(photos), runtime="onnxruntime").findings
    why = {f.kind: f.why for f in listed if f.kind == "imbalance"}
    assert why == {"imbalance": "horses has 48 pictures, humans has 4"}
    empty = [f.why for f in listed if f.kind == "empty_class"]
    assert empty == ["humans has no picture in validation", "humans has 4 in train"]


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="None of the 1 pictures"):
        check(open_dataset(tmp_path))


def test_unlabelled_pictures_and_arrays_can_be_checked(clean):
    paths = [str(p) for p in sorted((clean / "train" / "horses").iterdir())[:6]]
    kinds = {f.kind for f in check(from_images([*paths, paths[0]])).findings}
    assert kinds <= {"exact_duplicate", "near_duplicate", "blurred", "grey"}
    assert "exact_duplicate" in kinds


def test_the_table_can_be_edited_and_learned_from(photos, tmp_path):
    original = first(photos, number=6)
    copy = edit(original, COPIES["mirrored"][0], original.with_name("copy.jpg"))
    broken = first(photos, kind="humans")
    broken.write_bytes(b"")
    dataset = open_dataset(photos)
    told = check(dataset, runtime="onnxruntime")
    table = photos.parent / "fixed.csv"
    assert write_table(dataset, told.findings, told.groups, table) == 120
    rows = list(csv.DictReader(io.StringIO(table.read_text("utf-8"))))
    assert {row["path"] for row in rows[:2]} <= {
        Path(f).relative_to(table.parent).as_posix() for f in [original, copy]
    } | {row["path"] for row in rows if row["finding"]}
    by_path = {row["path"]: row for row in rows}
    own, double = (by_path[Path(path).relative_to(table.parent).as_posix()] for path in (original, copy))
    assert own["group"] == double["group"]
    assert own["finding"] == "near_duplicate"
    assert broken.relative_to(table.parent).as_posix() not in by_path
    kept = [row for row in rows if row is not double]
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(kept)
    again = open_dataset(table)
    assert len(again) == 119
    fitted = hs.ImageClassifier(runtime="onnxruntime", cache=False).fit(table)
    assert fitted.run_["groups"]["method"] == "column"
    with pytest.raises(OptionError, match="folder of the pictures or one above"):
        write_table(dataset, told.findings, told.groups, tmp_path / "photos" / "train" / "inner.csv")
    with pytest.raises(OptionError, match=r"must end in \.csv"):
        write_table(dataset, told.findings, told.groups, tmp_path / "fixed.txt")


@given(seed=st.integers(0, 10_000), side=st.integers(6, 14))
@settings(max_examples=20, deadline=None)
def test_correlations_equal_the_definition(seed, side):
    rng = np.random.default_rng(seed)
    whole = rng.uniform(0, 255, (16, 16)).astype(np.float32)
    crops = rng.uniform(0, 255, (2, 16, 16)).astype(np.float32)
    crop = np.kron(crops[1], np.ones((side, side))).reshape(side, 16, side, 16).mean(axis=(1, 3))  # averages of areas
    best = 0.0
    for top in range(17 - side):
        for left in range(17 - side):
            part = whole[top : top + side, left : left + side]
            for template in (crop, crop[:, ::-1]):
                best = max(best, float(np.corrcoef(part.ravel(), template.ravel())[0, 1]))
    found, at = best_places(np.stack([whole[::-1], whole]), crops, [side])
    assert found[1] == pytest.approx(best, abs=1e-5)
    assert at.tolist() == [side, side]


def test_sums_of_squares_equal_the_definition():
    values = np.random.default_rng(0).normal(size=(9, 9))
    sums = _squares(_integral(values[None]), 4)[0]
    assert sums.shape == (6, 6)
    for i in range(6):
        for j in range(6):
            assert sums[i, j] == pytest.approx(values[i : i + 4, j : j + 4].sum())


@given(seed=st.integers(0, 10_000), share=st.floats(0.5, 0.95), mirrored=st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_crop_passes_the_first_rough_look(seed, share, mirrored):
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).resize((300, 300), Image.Resampling.BICUBIC)
    edge = round(300 * share)
    left, top = rng.integers(0, 301 - edge, 2)
    part = np.asarray(image.crop((left, top, left + edge, top + edge)))[:, :: -1 if mirrored else 1]
    whole, crop = (
        tiny_image(shrink(Image.fromarray(np.ascontiguousarray(each))))
        .reshape(1, 16, 16, 3)
        .mean(axis=3, dtype=np.float32)
        for each in (np.asarray(image), part)
    )
    assert best_places(whole, crop, range(8, 16))[0] >= ROUGHLY


def test_a_crop_is_found_inside_and_another_picture_is_not():
    rng = np.random.default_rng(1)
    whole, other = (
        np.asarray(Image.fromarray(rng.integers(0, 256, (9, 9), np.uint8)).resize((64, 64), Image.Resampling.BICUBIC))
        for _ in range(2)
    )
    whole, other = whole.astype(np.float32), other.astype(np.float32)
    part = np.asarray(Image.fromarray(whole).resize((64, 64), Image.Resampling.BICUBIC, box=(9, 14, 52, 57)))
    even = np.full((64, 64), 7, np.float32)
    found = inside(np.stack([whole, whole, part, whole, whole]), np.stack([part, part[:, ::-1], whole, other, even]))
    assert (found[:2] > 0.97).all()
    assert (found[2:4] < 0.94).all()
    assert found[4] == 0


def test_sharpness_falls_with_blur_and_ignores_contrast():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(40, 216, (300, 400, 3), np.uint8))
    values = [sharpness(np.asarray(image.filter(ImageFilter.GaussianBlur(r)))) for r in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 4 * values[-1]
    faint = np.asarray(image).astype(np.float32) * 0.5 + 60
    assert sharpness(faint.astype(np.uint8)) == pytest.approx(values[0], rel=0.05)


def test_nearest_equals_sorting(monkeypatch):
    rng = np.random.default_rng(0)
    x, families = rng.normal(size=(23, 6)), rng.integers(0, 9, 23)
    for centred in (True, False):
        unit = x - x.mean(axis=0) * centred
        unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
        cosine = np.where(families[:, None] == families, -2, unit @ unit.T)
        expected = np.argsort(-cosine, axis=1, kind="stable")[:, :4]
        for tile in (5, 100):
            monkeypatch.setattr("headstart.splits.groups.TILE", tile)
            places, cosines = nearest_neighbours(x, families, 4, centred=centred)
            np.testing.assert_array_equal(places, expected)
            np.testing.assert_allclose(cosines, np.take_along_axis(cosine, expected, axis=1), atol=1e-6)
    places, cosines = nearest_neighbours(x[:3], np.array([0, 0, 1]), 4)
    assert (places[0] == [2, -1, -1, -1]).all()
    assert (cosines[2, 2:] == -1).all()


def test_check_on_the_command_line(photos, monkeypatch, capsys):
    import sys

    from headstart.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["headstart", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    original = first(photos, number=2)
    double = shutil.copy(original, original.with_name("\x1b[31mred.jpg"))
    status, out, err = run("check", photos, "--json", "--fix-list", photos / "fix.csv")
    told = json.loads(out)["findings"]
    assert status == 0
    assert "headstart fit" in err
    assert {"kind", "files", "confidence", "action"} <= set(told[0])
    assert [set(f["files"]) for f in told if f["kind"] == "exact_duplicate"] == [{str(original), str(double)}]
    first(photos, number=9).write_bytes(b"broken")
    status, out, _ = run("check", photos, "--strict", "--quiet")
    assert status == 1
    assert "\x1b" not in out
    assert "exact duplicate: 1" in out
    assert "unreadable: 1" in out


def test_looks_are_those_of_the_picture():
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (96, 144, 3), np.uint8)
    height, width, sharp = image_stats((96, 144), image[::2, ::2])
    assert (height, width) == (96, 144)
    green = image[::2, ::2, 1].astype(np.float64)
    laplacian = sum(np.roll(green, shift, axis) for shift in (1, -1) for axis in (0, 1)) - 4 * green
    rows = np.arange(1, 47, 3)
    assert sharp == pytest.approx(laplacian[rows, 1:-1].std() / (green[rows].std() + 1), rel=1e-5)
    finer = np.kron(green, np.ones((12, 12)))  # 576 x 864, sampled down to 256 x 384: each number 5 or 6 times
    samples = (np.arange(256) + 0.5) * 576 / 256 // 12, (np.arange(384) + 0.5) * 864 / 384 // 12
    seen = green[samples[0].astype(int)][:, samples[1].astype(int)]
    laplacian = sum(np.roll(seen, shift, axis) for shift in (1, -1) for axis in (0, 1)) - 4 * seen
    rows = np.arange(1, 255, 3)
    expected = laplacian[rows, 1:-1].std() / (seen[rows].std() + 1)
    assert sharpness(np.repeat(finer[:, :, None], 3, 2).astype(np.uint8)) == pytest.approx(expected, rel=1e-5)
    assert sharpness(image[:2]) == 1.0  # nothing can be said
    blocks = image.reshape(16, 6, 16, 9, 3).mean(axis=(1, 3)).reshape(-1)
    assert np.abs(tiny_image(shrink(Image.fromarray(image))) - blocks).max() <= 1
    middle = np.kron(rng.integers(0, 256, (48, 48, 3)), np.ones((2, 2, 1))).astype(np.uint8)
    padded = np.pad(middle, ((0, 0), (24, 24), (0, 0)))
    found = square_thumbnail(shrink(Image.fromarray(padded))).reshape(48, 48, 3)
    assert np.abs(found[2:-2, 2:-2] - middle[::2, ::2][2:-2, 2:-2].astype(int)).mean() < 40
    large = np.kron(image, np.ones((5, 5, 1), np.uint8))  # 480 x 720: shrunk by five, exactly
    np.testing.assert_array_equal(np.asarray(shrink(Image.fromarray(large))), image)
    np.testing.assert_array_equal(
        tiny_image(shrink(Image.fromarray(large))), tiny_image(shrink(Image.fromarray(image)))
    )
