"""Every program "without Headstart" of the documents runs as written on real photographs, and answers like predict."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers.photos import ROOT
from PIL import Image

from headstart import Compute, ImageClassifier, Predictor

PROBABILITY = 1e-5  # the same pixels and the same runtime: what is left is the size of the batch
GUIDE = ROOT / "docs" / "how-to" / "use-the-model.md"
BLOCKED = "import sys\nsys.modules['headstart'] = None\n"  # an import of it would fail


@pytest.fixture(scope="module")
def case(shared, tmp_path_factory):
    """A model of real photographs, and some of them, of which one is rotated by EXIF and one is CMYK."""
    folder = tmp_path_factory.mktemp("case")
    train = shared / "data" / "ants-bees" / "train"
    for name in ("ants", "bees"):
        (folder / "train" / name).mkdir(parents=True)
        for path in sorted((train / name).iterdir())[:20]:
            shutil.copy(path, folder / "train" / name)
    ImageClassifier("headstart-s", cache=False, runtime="onnxruntime").fit(str(folder / "train")).save(folder / "model")
    images = sorted((shared / "data" / "ants-bees" / "val").rglob("*.jpg"))[::6]
    paths = [shutil.copy(path, folder / f"{i:02}.jpg") for i, path in enumerate(images)]
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(images[0]) as image:
        image.save(folder / "turned.jpg", exif=exif, quality=95)
        image.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
        image.save(folder / "large.png")
        image.resize((3000, 2000)).save(folder / "large.jpg", exif=exif)
    paths += [folder / name for name in ("turned.jpg", "cmyk.jpg", "large.png", "large.jpg")]
    return folder, [str(path) for path in paths]


@pytest.fixture(scope="module")
def expected(case):
    folder, paths = case
    return Predictor.load(folder / "model", Compute("onnxruntime", "fp32")).predict(paths)


def run(program, folder, paths):
    """Run a program that defines ``answer(path)`` in a process of its own, without Headstart; return its answers."""
    loop = f"\nimport json\nprint('\\n' + json.dumps([answer(path) for path in {paths!r}]))\n"
    command = [sys.executable, "-I", "-c", BLOCKED + program + loop]
    completed = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout.splitlines()[-1])


def blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


def test_the_program_of_the_guide_answers_like_predict(case, expected):
    folder, paths = case
    shutil.copy(paths[0], folder / "new.jpg")
    (program,) = [code for code in blocks(GUIDE.read_text("utf-8")) if "onnxruntime" in code]
    answers = run(program + "\nanswer = predict", folder, paths)
    for i, (name, probability, members, is_rejected) in enumerate(answers):
        assert name == expected.classes[expected.predicted[i]]
        assert probability == pytest.approx(expected.confidence[i], abs=PROBABILITY)
        assert sorted(members) == sorted(expected.prediction_set(i))
        assert is_rejected == expected.is_rejected[i]


def test_the_program_of_the_model_card_answers_like_predict(case, expected):
    folder, paths = case
    card = (folder / "model" / "README.md").read_text("utf-8")
    code = re.search(r"((?:^    .*\n|^\n)*^    .*preprocess\(.*\n(?:^    .*\n)*)", card, re.M)[1]
    lines = [line.removeprefix("    ") for line in code.strip("\n").splitlines()]
    shutil.copy(paths[0], folder / "model" / "new.jpg")
    body = "\n".join(lines)
    assert body.startswith("import json, numpy, onnxruntime\n")
    start = body.index("pixels =")
    answer = "def answer(path):\n" + "\n".join(
        f"    {line}" for line in body[start:].replace('"new.jpg"', "path").replace("print(", "return (").splitlines()
    )
    program = f"sys.path.insert(0, '')\n{body}\n{answer.replace('.max())', '.max().item())')}"
    for i, (name, probability) in enumerate(run(program, folder / "model", paths)):
        assert name == expected.classes[expected.predicted[i]]
        assert probability == pytest.approx(expected.confidence[i], abs=PROBABILITY)


def test_the_preparation_of_the_documents_without_antialiasing_would_differ(case, expected):
    """What people write instead: the answers are not the same, which is why the function is shipped."""
    import onnxruntime

    folder, paths = case
    session = onnxruntime.InferenceSession(folder / "model" / "model.onnx")
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB").resize((160, 160))) for path in paths])
    probabilities = session.run(["probabilities"], {"pixels": pixels})[0]
    assert np.abs(probabilities - expected.probabilities).max() > 0.01


def program_of(readme, answer):
    """The program of the README of an export, its last four lines as a function of the path."""
    (code,) = blocks(readme.read_text("utf-8"))
    lines = code.strip().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("pixels = "))
    body = [line.replace('"new.jpg"', "path") for line in lines[start:-1]]
    return "\n".join(
        ["sys.path.insert(0, '')", *lines[:start], "def answer(path):", *(f"    {x}" for x in body), answer]
    )


ANSWER = '    return about["classes"][probabilities[0].argmax()], probabilities[0].tolist(), float(distance[0])'


@pytest.mark.slow
@pytest.mark.parametrize("any_size", [False, True], ids=["prepared", "any size"])
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_the_program_of_an_export_answers_like_predict(case, expected, tmp_path, to, any_size):
    from headstart.export import ExportOptions, export_model
    from headstart.model.folder import read_model

    pytest.importorskip("openvino", reason="needs OpenVINO (extra openvino)")
    folder, paths = case
    export_model(read_model(folder / "model"), to, tmp_path / "out", ExportOptions(any_size=any_size))
    tolerance = 0.025 if any_size else 1e-4
    for i, (name, probabilities, distance) in enumerate(
        run(program_of(tmp_path / "out" / "README.md", ANSWER), tmp_path / "out", paths)
    ):
        assert name == expected.classes[expected.predicted[i]]
        assert probabilities == pytest.approx(expected.probabilities[i].tolist(), abs=tolerance)
        assert distance == pytest.approx(expected.ood_scores[i], abs=tolerance)
