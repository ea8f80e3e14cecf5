"""Needs PyTorch and the teacher's file: `python -m pytest pretraining/tests` (see the README)."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
HERE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HERE))
SHARED = Path(os.environ.get("HEADSTART_SHARED", HERE.parents[1] / "shared"))
TEACHER = SHARED / "weights" / "mobilenetv2-imagenet.onnx"

import apart  # noqa: E402
from pictures import Source, batch_at, mosaic  # noqa: E402
from PIL import Image  # noqa: E402
from prune import RIDGE, choose, prune  # noqa: E402
from student import FULL, HEADSTART_S, TAPS, Student  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from train import losses, share_at, sides_at  # noqa: E402


@pytest.fixture(scope="module")
def teacher_path():
    if not TEACHER.exists():
        pytest.skip(f"no teacher at {TEACHER}: set HEADSTART_SHARED")
    return TEACHER


def test_with_nothing_pruned_the_student_is_the_teacher(teacher_path):
    from teacher import Teacher

    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 3, 96, 96)).astype(np.float32)
    ends = [part.target for part in FULL]
    targets = dict(zip(ends, Teacher(f"onnx:{teacher_path}", ends, precise=True)(pixels), strict=True))
    teacher = Teacher(f"onnx:{teacher_path}", precise=True)
    student = Student(FULL, relu6=True)
    x = torch.from_numpy(pixels)
    prune(student, teacher.weights, x, {k: torch.from_numpy(v) for k, v in targets.items()}, say=lambda _: None)
    with torch.no_grad():
        maps = student(x)
    for mine, theirs in zip(maps, teacher(pixels), strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, atol=2e-3 * np.abs(theirs).max())


def test_elimination_keeps_the_channels_that_explain_the_output_and_solves_least_squares():
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(500, 8))
    wanted = hidden[:, [1, 4, 6]] @ rng.normal(size=(3, 5)) + 0.7
    rows = np.c_[hidden, np.ones(500)]
    kept, weights, bias = choose(rows.T @ rows, rows.T @ wanted, 3)
    assert kept.tolist() == [1, 4, 6]
    np.testing.assert_allclose(hidden[:, kept] @ weights.T + bias, wanted, rtol=0.01, atol=0.03)
    chosen = np.c_[hidden[:, kept], np.ones(500)]
    ridge = RIDGE * (hidden**2).sum() / 8 * np.diag([1, 1, 1, 0])
    solved = np.linalg.solve(chosen.T @ chosen + ridge, chosen.T @ wanted)
    np.testing.assert_allclose(np.r_[weights.T, [bias]], solved, atol=1e-9)


def test_schedules():
    found = [sides_at("96:0.5,160/224:0.5", p) for p in (0, 0.49, 0.5, 1)]
    assert found == [(96, 96), (96, 96), (160, 224), (160, 224)]
    assert [share_at(p, 0.2, 0.6) for p in (0, 0.1, 0.6, 1)] == [1, 1, 0, 0]
    assert share_at(0.4, 0.2, 0.6) == pytest.approx(0.5)
    assert share_at(0, 0, 0) == 0


def test_the_graph_answers_as_the_student():
    ort = pytest.importorskip("onnxruntime")
    from export import build
    from pictures import normalised

    torch.manual_seed(0)
    student = Student(HEADSTART_S, norm=True)
    pixels = np.random.default_rng(2).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        student(torch.randn(8, 3, 64, 64))  # statistics that are not 0 and 1
        maps = student.eval()(torch.from_numpy(normalised(pixels)))
    model, taps = build(student, 64, half=False)
    found = ort.InferenceSession(model.SerializeToString()).run(None, {"pixels": pixels})
    for value, m, tap in zip(found, maps, taps, strict=True):
        assert tap["size"] == list(m.shape[2:])
        expected = m.mean(dim=(2, 3)).numpy()
        np.testing.assert_allclose(value, expected, atol=1e-4 * np.abs(expected).max())


def test_a_run_killed_and_resumed_ends_as_one_left_alone(tmp_path, teacher_path):
    rng = np.random.default_rng(3)
    (tmp_path / "pictures").mkdir()
    for i in range(12):
        noise = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        noise.resize((96, 72)).save(tmp_path / "pictures" / f"{i}.jpg")

    def train(out, *more) -> int:
        """The exit status of a run of six steps."""
        options = {
            "--pictures": f"{tmp_path / 'pictures'}=1", "--out": out, "--teacher": f"onnx:{teacher_path}",
            "--start": "random", "--sizes": "32/64:1", "--batch": 4, "--steps": 6, "--probe-every": 0,
            "--save-every": 2, "--threads": 1, "--device": "cpu",
        }  # fmt: skip
        command = [sys.executable, "train.py", *(str(part) for pair in options.items() for part in pair), *more]
        return subprocess.run(command, cwd=HERE, capture_output=True).returncode

    assert train(tmp_path / "whole") == 0
    assert train(tmp_path / "cut", "--stop-after", "3") == 9  # dies without a word between two checkpoints
    assert torch.load(tmp_path / "cut" / "checkpoint.pt")["step"] == 2
    assert train(tmp_path / "cut", "--resume") == 0
    first, second = (torch.load(tmp_path / run / "checkpoint.pt") for run in ("whole", "cut"))
    assert first["step"] == second["step"] == 6
    for name, value in first["student"].items():
        torch.testing.assert_close(value, second["student"][name], rtol=1e-5, atol=1e-6)
    for name, value in first["average"].items():
        torch.testing.assert_close(value, second["average"][name], rtol=1e-5, atol=1e-6)


def test_the_folder_of_a_look_alike_is_kept_apart(tmp_path):
    rng = np.random.default_rng(0)

    def save(place, values, **options):
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).resize((96, 64), Image.Resampling.BICUBIC).save(place, **options)

    scenes = rng.integers(0, 256, (6, 5, 6, 3), np.uint8)
    save(tmp_path / "data" / "a" / "1.png", scenes[0])
    for i, scene in enumerate(scenes[1:]):
        save(tmp_path / "pictures" / f"class{i}" / "images" / "1.jpg", scene)
    save(tmp_path / "pictures" / "class3" / "images" / "2.jpg", scenes[0, :, ::-1], quality=60)  # mirrored
    found = list(apart.look_alikes(Source(tmp_path / "pictures"), [Source(tmp_path / "data")]))
    assert [(Path(ours).parent.parent.name, Path(theirs).name) for ours, theirs, _ in found] == [("class3", "1.png")]
    assert found[0][2] > 0.97
    assert apart.folder(found[0][0]) == str(tmp_path / "pictures" / "class3")


def test_the_teacher_sees_the_same_crop_in_more_pixels(tmp_path):
    y, x = np.mgrid[:300, :400]
    smooth = np.stack([x * 255 // 399, y * 255 // 299, (x + y) * 255 // 698], axis=2).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.png")
    for step in range(4):  # among 32 pictures there are mosaics, flips and mixtures
        small, large = batch_at([Source(tmp_path)], [1.0], 8, (32, 64), 0, step)
        assert small.shape == (8, 3, 32, 32)
        halved = large.reshape(8, 3, 32, 2, 32, 2).mean(axis=(3, 5))
        # A smooth picture looks the same at half the size but along the seams of mosaics.
        assert np.median(np.abs(halved - small)) < 0.01
        assert np.abs(halved - small).mean() < 0.03


def test_a_mosaic_has_its_four_pictures_in_reading_order():
    four = [[np.full((2, 2, 3), value, np.uint8), np.full((3, 3, 3), value, np.uint8)] for value in range(4)]
    small, large = mosaic(four)
    assert small[:, :, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert large.shape == (6, 6, 3)
    assert large[::3, ::3, 0].tolist() == [[0, 1], [2, 3]]


def test_losses_of_a_zoomed_teacher_are_zero_for_a_student_that_agrees():
    torch.manual_seed(0)
    maps = [torch.rand(2, width, side, side) for width, side in ((24, 8), (32, 4), (96, 2), (320, 1), (1280, 1))]
    classifier = torch.randn(10, 1280), torch.randn(10)
    same = losses(maps, maps, classifier)
    assert set(same) == {*TAPS, "pooled", "kl"}
    assert all(abs(float(value)) < 1e-6 for value in same.values())
    larger = [F.interpolate(m, scale_factor=2, mode="nearest") for m in maps]
    zoomed = losses(maps, larger, classifier)
    assert set(zoomed) == {"stage4", "stage5", "features", "pooled", "kl"}  # its first stages see other edges
    assert float(zoomed["pooled"]) < 1e-6
    assert float(zoomed["kl"]) < 1e-4
