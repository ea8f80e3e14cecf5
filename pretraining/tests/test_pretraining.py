"""Needs PyTorch and the teacher's file: ``python -m pytest pretraining/tests`` (see the README)."""

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

from images import ImageSource, class_folder, make_batch, mosaic, normalise, prefetch  # noqa: E402
from overlap import find_matches, remove_overlap  # noqa: E402
from PIL import Image  # noqa: E402
from prune import RIDGE, choose_channels, prune  # noqa: E402
from student import FULL, HEADSTART_S, TAPS, Student  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from train import KILLED, forcing_at, losses, sides_at  # noqa: E402


@pytest.fixture(scope="module")
def teacher_path():
    if not TEACHER.exists():
        pytest.skip(f"there is no teacher at {TEACHER}: set HEADSTART_SHARED")
    return TEACHER


def test_with_nothing_pruned_the_student_equals_the_teacher(teacher_path):
    from teacher import Teacher

    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 3, 96, 96)).astype(np.float32)
    blocks = [spec.target for spec in FULL]
    maps = Teacher(f"onnx:{teacher_path}", blocks, fp32=True)(pixels)
    targets = {block: torch.from_numpy(values) for block, values in zip(blocks, maps, strict=True)}
    teacher = Teacher(f"onnx:{teacher_path}", fp32=True)
    student = Student(FULL, activation="relu6")
    x = torch.from_numpy(pixels)
    prune(student, teacher.weights, x, targets, say=lambda _: None)
    with torch.no_grad():
        maps = student(x)
    for student_map, teacher_map in zip(maps, teacher(pixels), strict=True):
        np.testing.assert_allclose(student_map.numpy(), teacher_map, atol=2e-3 * np.abs(teacher_map).max())


def test_pruning_keeps_the_channels_that_explain_the_output_and_solves_least_squares():
    generator = np.random.default_rng(1)
    hidden = generator.normal(size=(500, 8))
    output = hidden[:, [1, 4, 6]] @ generator.normal(size=(3, 5)) + 0.7
    rows = np.c_[hidden, np.ones(500)]
    channels, weights, bias = choose_channels(rows.T @ rows, rows.T @ output, 3)
    assert channels.tolist() == [1, 4, 6]
    np.testing.assert_allclose(hidden[:, channels] @ weights.T + bias, output, rtol=0.01, atol=0.03)
    chosen = np.c_[hidden[:, channels], np.ones(500)]
    ridge = RIDGE * (hidden**2).sum() / 8 * np.diag([1, 1, 1, 0])
    solved = np.linalg.solve(chosen.T @ chosen + ridge, chosen.T @ output)
    np.testing.assert_allclose(np.r_[weights.T, [bias]], solved, atol=1e-9)


def test_schedules_of_sizes_and_of_teacher_forcing():
    sides = [sides_at("96:0.5,160/224:0.5", progress) for progress in (0, 0.49, 0.5, 1)]
    assert sides == [(96, 96), (96, 96), (160, 224), (160, 224)]
    assert [forcing_at(progress, 0.2, 0.6) for progress in (0, 0.1, 0.6, 1)] == [1, 1, 0, 0]
    assert forcing_at(0.4, 0.2, 0.6) == pytest.approx(0.5)
    assert forcing_at(0, 0, 0) == 0


def test_the_exported_graph_computes_what_the_student_does():
    ort = pytest.importorskip("onnxruntime")
    from export import build

    torch.manual_seed(0)
    student = Student(HEADSTART_S, norm=True)
    pixels = np.random.default_rng(2).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        student(torch.randn(8, 3, 64, 64))  # statistics that are not 0 and 1
        maps = student.eval()(torch.from_numpy(normalise(pixels)))
    model, taps = build(student, 64, fp16=False)
    outputs = ort.InferenceSession(model.SerializeToString()).run(None, {"pixels": pixels})
    for output, stage_map, tap in zip(outputs, maps, taps, strict=True):
        assert tap["size"] == list(stage_map.shape[2:])
        expected = stage_map.mean(dim=(2, 3)).numpy()
        np.testing.assert_allclose(output, expected, atol=1e-4 * np.abs(expected).max())


def test_a_run_that_was_killed_and_resumed_ends_like_one_that_was_not(tmp_path, teacher_path):
    generator = np.random.default_rng(3)
    (tmp_path / "images").mkdir()
    for i in range(12):
        noise = Image.fromarray(generator.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        noise.resize((96, 72)).save(tmp_path / "images" / f"{i}.jpg")

    def train(out, *further_options) -> int:
        """Run six steps; return the exit status."""
        options = {
            "--images": f"{tmp_path / 'images'}=1",
            "--out": out,
            "--teacher": f"onnx:{teacher_path}",
            "--start": "random",
            "--sizes": "32/64:1",
            "--batch-size": 4,
            "--steps": 6,
            "--probe-every": 0,
            "--save-every": 2,
            "--threads": 1,
            "--device": "cpu",
        }
        command = [sys.executable, "train.py", *(str(part) for pair in options.items() for part in pair)]
        return subprocess.run([*command, *further_options], cwd=HERE, capture_output=True).returncode

    assert train(tmp_path / "whole") == 0
    assert train(tmp_path / "cut", "--stop-after", "3") == KILLED  # between two checkpoints
    assert torch.load(tmp_path / "cut" / "checkpoint.pt")["step"] == 2
    assert train(tmp_path / "cut", "--resume") == 0
    first, second = (torch.load(tmp_path / run / "checkpoint.pt") for run in ("whole", "cut"))
    assert first["step"] == second["step"] == 6
    for name, value in first["student"].items():
        torch.testing.assert_close(value, second["student"][name], rtol=1e-5, atol=1e-6)
    for name, value in first["average"].items():
        torch.testing.assert_close(value, second["average"][name], rtol=1e-5, atol=1e-6)


def test_the_class_folder_of_an_image_that_looks_like_an_evaluation_image_is_left_out(tmp_path):
    generator = np.random.default_rng(0)

    def save(path, pixels, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((96, 64), Image.Resampling.BICUBIC).save(path, **options)

    scenes = generator.integers(0, 256, (6, 5, 6, 3), np.uint8)
    save(tmp_path / "data" / "a" / "1.png", scenes[0])
    for i, scene in enumerate(scenes[1:]):
        save(tmp_path / "images" / f"class{i}" / "images" / "1.jpg", scene)
    save(tmp_path / "images" / "class3" / "images" / "2.jpg", scenes[0, :, ::-1], quality=60)  # mirrored
    source, evaluation = ImageSource(tmp_path / "images"), [ImageSource(tmp_path / "data")]
    matches = list(find_matches(source, evaluation))
    names = [(Path(match.name).parent.parent.name, Path(match.evaluation_name).name) for match in matches]
    assert names == [("class3", "1.png")]
    assert matches[0].correlation > 0.97
    assert class_folder(matches[0].name) == str(tmp_path / "images" / "class3")
    remove_overlap(source, evaluation)
    assert {Path(class_folder(name)).name for name in source.names} == {"class0", "class1", "class2", "class4"}


def test_the_teacher_sees_the_same_crop_in_more_pixels(tmp_path):
    y, x = np.mgrid[:300, :400]
    smooth = np.stack([x * 255 // 399, y * 255 // 299, (x + y) * 255 // 698], axis=2).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.png")
    for step in range(4):  # among 32 images there are mosaics, flips and mixtures
        small, large = make_batch([ImageSource(tmp_path)], [1.0], 8, (32, 64), 0, step)
        assert small.shape == (8, 3, 32, 32)
        halved = large.reshape(8, 3, 32, 2, 32, 2).mean(axis=(3, 5))
        # A smooth image looks the same at half the size, except along the seams of mosaics.
        assert np.median(np.abs(halved - small)) < 0.01
        assert np.abs(halved - small).mean() < 0.03


def test_a_mosaic_has_its_four_images_in_reading_order():
    crops = [[np.full((2, 2, 3), value, np.uint8), np.full((3, 3, 3), value, np.uint8)] for value in range(4)]
    small, large = mosaic(crops)
    assert small[:, :, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert large.shape == (6, 6, 3)
    assert large[::3, ::3, 0].tolist() == [[0, 1], [2, 3]]


def test_batches_made_in_threads_come_in_order():
    assert list(prefetch(lambda step: step**2, range(3, 20), workers=3)) == [step**2 for step in range(3, 20)]
    assert list(prefetch(lambda step: step, range(2), workers=3)) == [0, 1]


def test_the_losses_of_a_zoomed_teacher_are_zero_for_a_student_that_agrees():
    torch.manual_seed(0)
    maps = [torch.rand(2, width, side, side) for width, side in ((24, 8), (32, 4), (96, 2), (320, 1), (1280, 1))]
    classifier = torch.randn(10, 1280), torch.randn(10)
    same = losses(maps, maps, classifier)
    assert set(same) == {*TAPS, "pooled", "kl"}
    assert all(abs(float(value)) < 1e-6 for value in same.values())
    larger = [F.interpolate(stage_map, scale_factor=2, mode="nearest") for stage_map in maps]
    zoomed = losses(maps, larger, classifier)
    assert set(zoomed) == {"stage4", "stage5", "features", "pooled", "kl"}  # its first stages see other edges
    assert float(zoomed["pooled"]) < 1e-6
    assert float(zoomed["kl"]) < 1e-4
