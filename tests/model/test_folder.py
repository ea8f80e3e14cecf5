"""The model folder: what is written reads back, runs elsewhere, and hostile ones are refused."""

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import headstart as hs
from headstart.errors import HeadstartError, ModelError, OptionError, VerifyError
from headstart.features.runtime import RuntimeInfo, resolve_runtime
from headstart.images.decode import decode
from headstart.model import make_golden, read, verify, write


@pytest.fixture
def model(model_folder, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def edit(model: Path, change) -> None:
    config = json.loads((model / "config.json").read_text("utf-8"))
    change(config)
    (model / "config.json").write_text(json.dumps(config), "utf-8")


def test_the_folder_holds_what_the_format_says(model_folder):
    names = {p.name for p in model_folder.iterdir()}
    assert names == {"config.json", "model.onnx", "head.safetensors", "golden.npz", "run.json", "README.md"}
    config = json.loads((model_folder / "config.json").read_text("utf-8"))
    assert config["id2label"] == {"0": "disc", "1": "stripes"}
    assert config["label2id"] == {"disc": 0, "stripes": 1}
    assert config["preprocess"]["height"] == 160
    assert config["backbone"]["id"] == "headstart-s"
    assert config["format"] == 2
    assert config["reject_threshold"] is None or 0 < config["reject_threshold"] < 1
    assert len(config["set_thresholds"]) == 2
    assert (config["coverage"], config["false_alarms"]) == (0.95, 0.05)
    run = json.loads((model_folder / "run.json").read_text("utf-8"))
    assert {"versions", "seed", "data", "seconds", "accuracy", "candidates"} <= set(run)
    card = (model_folder / "README.md").read_text("utf-8")
    assert "disc, stripes" in card
    assert f"{run['accuracy']['validation']['value']:.1%}" in card


def test_reading_gives_back_what_was_written(model_folder, tmp_path):
    first = read(model_folder)
    second = read(write(first, tmp_path / "again"))
    assert second.classes == first.classes
    assert second.preprocess == first.preprocess
    assert second.graph == first.graph
    assert second.head.taps == first.head.taps
    assert second.head.temperature == first.head.temperature
    np.testing.assert_array_equal(second.head.weights, first.head.weights)
    np.testing.assert_array_equal(second.golden.pixels, first.golden.pixels)
    np.testing.assert_array_equal(second.golden.decoded, first.golden.decoded)
    np.testing.assert_array_equal(second.golden.distances, first.golden.distances)
    assert second.golden.distance_tolerance == first.golden.distance_tolerance
    for name in ("centre", "scales", "factor"):
        np.testing.assert_array_equal(getattr(second.familiar, name), getattr(first.familiar, name))
    assert second.promises == first.promises
    assert second.run == json.loads(json.dumps(first.run))


def test_the_graph_alone_gives_the_same_probabilities(model_folder, photos):
    """Plain ONNX Runtime and Pillow, no Headstart in the path but the documented resize."""
    files = sorted((photos / "validation").rglob("*.jpg"))
    classifier = hs.load(model_folder).set_params(runtime="onnxruntime")
    expected = classifier.predict_proba(files)
    session = onnxruntime.InferenceSession(model_folder / "model.onnx")
    assert [i.name for i in session.get_inputs()] == ["pixels"]
    pixels = np.stack([classifier.model_.preprocess(decode(f.read_bytes())) for f in files])
    got = session.run(None, {"pixels": pixels})[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-5)


def test_the_graph_is_the_head_on_the_features(model_folder, photos):
    from headstart import backbones
    from headstart.data import open_dataset
    from headstart.features.features import embed

    model = read(model_folder)
    dataset = open_dataset(photos).split("validation")
    features = embed(dataset, backbones.load("headstart-s"), runtime="onnxruntime", exact=True)
    expected = model.head.probabilities(features.matrix(model.head.taps, np.arange(len(features.index))))
    got = hs.load(model_folder).set_params(runtime="onnxruntime").answer(dataset).probabilities
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_the_graph_gives_the_distances_of_the_arrays(model_folder, photos):
    """``distance`` of the ONNX graph, in plain ONNX Runtime, against head.safetensors on the features."""
    from headstart import backbones
    from headstart.data import open_dataset
    from headstart.features.features import embed

    model = read(model_folder)
    dataset = open_dataset(photos).split("validation")
    features = embed(dataset, backbones.load("headstart-s"), runtime="onnxruntime", exact=True)
    expected = model.familiar.distances(features.matrix(model.head.taps, np.arange(len(features.index))))
    session = onnxruntime.InferenceSession(model_folder / "model.onnx")
    assert [(o.name, len(o.shape)) for o in session.get_outputs()] == [("probabilities", 2), ("distance", 1)]
    pixels = np.stack([model.preprocess(decode(dataset.read(i))) for i in range(len(dataset))])
    np.testing.assert_allclose(session.run(["distance"], {"pixels": pixels})[0], expected, atol=1e-4)
    assert expected.std() > 0.01
    for runtime in ("onnxruntime", "openvino"):
        try:
            resolve_runtime(runtime)
        except HeadstartError:
            continue
        found = hs.load(model_folder).set_params(runtime=runtime).answer(dataset).distances
        np.testing.assert_allclose(found, expected, atol=0.1 if runtime == "openvino" else 1e-4)


def test_a_folder_of_format_1_has_no_promises(model_folder, photos, tmp_path):
    """As the version before wrote it: no thresholds, no familiar.*, one output."""
    from headstart import backbones
    from headstart.model import compose

    loaded = read(model_folder)
    graph = compose(backbones.load("headstart-s"), loaded.head)
    golden = replace(loaded.golden, distances=None, distance_tolerance={})
    old = replace(loaded, graph=graph, sha256=sha256(graph).hexdigest(), golden=golden, promises=None, familiar=None)
    folder = write(old, tmp_path / "old")
    edit(folder, lambda c: c.update(reject_threshold=None))
    again = hs.load(folder)
    assert again.model_.promises is again.model_.familiar is again.model_.golden.distances is None
    files = sorted((photos / "validation").rglob("*.jpg"))
    runtime = {"runtime": "onnxruntime"}
    expected = hs.load(model_folder).set_params(**runtime).predict_proba(files)
    np.testing.assert_allclose(again.set_params(**runtime).predict_proba(files), expected, atol=1e-6)
    assert again.verify().distance is None


def test_verify_sees_other_distances(model_folder):
    model = read(model_folder)
    shifted = replace(model.golden, distances=model.golden.distances + np.float32(0.1))
    with pytest.raises(VerifyError, match="in a distance"):
        verify(replace(model, golden=shifted), resolve_runtime("onnxruntime"))
    assert verify(model, resolve_runtime("onnxruntime")).distance <= 0.002


def test_verify_answers_on_every_runtime_here(model_folder):
    model = read(model_folder)
    for runtime in ("onnxruntime", "openvino"):
        try:
            info = resolve_runtime(runtime)
        except HeadstartError:
            continue
        found = verify(model, info)
        assert found.pictures == 8
        assert found.difference <= found.tolerance


def test_verify_sees_other_probabilities_and_other_pixels(model_folder):
    model = read(model_folder)
    golden = model.golden
    shifted = replace(golden, probabilities=golden.probabilities[:, ::-1].copy())
    with pytest.raises(VerifyError, match="differs by"):
        verify(replace(model, golden=shifted), resolve_runtime("onnxruntime"))
    with pytest.raises(VerifyError, match=r"decodes to other pixels here \(by up to 1 of 255\)"):
        verify(replace(model, golden=replace(golden, decoded=golden.decoded ^ 1)), resolve_runtime("onnxruntime"))
    with pytest.raises(VerifyError, match="differs by"):
        verify(replace(model, golden=replace(golden, pixels=255 - golden.pixels)), resolve_runtime("onnxruntime"))
    with pytest.raises(ModelError, match="no golden sample"):
        verify(replace(model, golden=None), RuntimeInfo("onnxruntime", "0", "fp32"))


def test_the_tolerance_of_a_precision_is_twice_what_the_fit_saw(model_folder):
    model = read(model_folder)
    pictures, reference = list(model.golden.pixels), model.golden.probabilities
    off = np.clip(reference + 0.2 * np.array([1, -1]), 0, 1)
    made = make_golden(model, pictures, off, "bf16")
    assert made.tolerance["bf16"] == pytest.approx(2 * np.abs(off - reference).max(), abs=1e-5)
    assert made.tolerance["fp32"] == 0.002
    assert make_golden(model, pictures, reference, "bf16").tolerance["bf16"] == 0.05
    np.testing.assert_allclose(made.probabilities, reference, atol=1e-6)


def test_verify_counts_classes_that_change_within_the_tolerance(model_folder):
    model = read(model_folder)
    turned = replace(model.golden, probabilities=model.golden.probabilities[:, ::-1].copy(), tolerance={"fp32": 1.0})
    assert verify(replace(model, golden=turned), resolve_runtime("onnxruntime")).changed == 8
    assert verify(model, resolve_runtime("onnxruntime")).changed == 0


def spoil_config(text):
    return lambda model: (model / "config.json").write_bytes(text)


def cut_off(name, share=0.5):
    def spoil(model):
        data = (model / name).read_bytes()
        (model / name).write_bytes(data[: int(len(data) * share)])

    return spoil


def with_config(change):
    return lambda model: edit(model, change)


def other_tensors(**tensors):
    def spoil(model):
        from safetensors.numpy import save

        (model / "head.safetensors").write_bytes(save(tensors))

    return spoil


def more_tensors(**changes):
    right = {"centre": np.zeros(4, "f4"), "scales": np.ones(4, "f4"), "factor": np.zeros((4, 2), "f2")}
    familiar = {f"familiar.{name}": array for name, array in (right | changes).items()}
    return other_tensors(weights=np.zeros((4, 2), "f4"), bias=np.zeros(2, "f4"), **familiar)


def golden_with(**changes):
    def spoil(model):
        with np.load(model / "golden.npz") as arrays:
            kept = {**arrays, **changes}
        np.savez(model / "golden.npz", **{name: array for name, array in kept.items() if array is not None})

    return spoil


class Mark:
    def __reduce__(self):
        return (os.mkdir, ("pickle-was-run",))


def pickled_golden(model):
    np.savez(model / "golden.npz", pixels=np.array([Mark()], object), probabilities=np.zeros((1, 2)))


def pickled(name):
    return lambda model: (model / name).write_bytes(pickle.dumps(Mark()))


def linked_out(name):
    def spoil(model):
        outside = model.parent / f"outside-{name}"
        shutil.move(model / name, outside)
        (model / name).symlink_to(outside)

    return spoil


def huge_header(model):
    (model / "head.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")


def external_weights(model):
    import hashlib

    import onnx

    graph = onnx.load(model / "model.onnx")
    tensor = graph.graph.initializer[0]
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "../../../etc/passwd"), ("length", str(size))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    data = graph.SerializeToString()
    (model / "model.onnx").write_bytes(data)
    edit(model, lambda c: c["sha256"].update({"model.onnx": hashlib.sha256(data).hexdigest()}))


HOSTILE = {
    "config of nothing": spoil_config(b""),
    "config cut off": cut_off("config.json"),
    "config no object": spoil_config(b"[1, 2]"),
    "config deep": spoil_config(b"[" * 100_000),
    "config not text": spoil_config(b"\xff\xfe\x00"),
    "config pickle": pickled("config.json"),
    "no format": with_config(lambda c: c.pop("format")),
    "newer format": with_config(lambda c: c.update(format=99)),
    "format true": with_config(lambda c: c.update(format=True)),
    "format text": with_config(lambda c: c.update(format="1")),
    "no classes": with_config(lambda c: c.update(id2label={})),
    "one class": with_config(lambda c: c.update(id2label={"0": "a"})),
    "classes of other count": with_config(lambda c: c.update(id2label={"0": "a", "1": "b", "2": "c"})),
    "same class twice": with_config(lambda c: c.update(id2label={"0": "a", "1": "a"})),
    "class that is no text": with_config(lambda c: c.update(id2label={"0": "a", "1": 2})),
    "classes a list": with_config(lambda c: c.update(id2label=["a", "b"])),
    "gap in numbers": with_config(lambda c: c.update(id2label={"0": "a", "2": "b"})),
    "size of zero": with_config(lambda c: c["preprocess"].update(height=0)),
    "enormous size": with_config(lambda c: c["preprocess"].update(height=10**9)),
    "unknown preprocessing": with_config(lambda c: c["preprocess"].update(shell="rm")),
    "no preprocessing": with_config(lambda c: c.pop("preprocess")),
    "temperature zero": with_config(lambda c: c.update(temperature=0)),
    "temperature text": with_config(lambda c: c.update(temperature="hot")),
    "temperature nan": with_config(lambda c: c.update(temperature=float("nan"))),
    "no coverage": with_config(lambda c: c.pop("coverage")),
    "coverage of all": with_config(lambda c: c.update(coverage=1)),
    "coverage text": with_config(lambda c: c.update(coverage="most")),
    "no false alarms": with_config(lambda c: c.pop("false_alarms")),
    "false alarms true": with_config(lambda c: c.update(false_alarms=True)),
    "no set thresholds": with_config(lambda c: c.pop("set_thresholds")),
    "set thresholds of another count": with_config(lambda c: c.update(set_thresholds=[0.5])),
    "set threshold above 1": with_config(lambda c: c.update(set_thresholds=[0.5, 1.5])),
    "set threshold nan": with_config(lambda c: c.update(set_thresholds=[0.5, float("nan")])),
    "set thresholds an object": with_config(lambda c: c.update(set_thresholds={"0": 0.5, "1": 0.5})),
    "no reject threshold": with_config(lambda c: c.pop("reject_threshold")),
    "reject threshold negative": with_config(lambda c: c.update(reject_threshold=-1)),
    "reject threshold infinite": with_config(lambda c: c.update(reject_threshold=float("inf"))),
    "reject threshold text": with_config(lambda c: c.update(reject_threshold="0.5")),
    "reject threshold enormous": with_config(lambda c: c.update(reject_threshold=10**400)),
    "familiar missing": other_tensors(weights=np.zeros((4, 2), "f4"), bias=np.zeros(2, "f4")),
    "familiar of other width": more_tensors(centre=np.zeros(3, "f4")),
    "familiar flat": more_tensors(factor=np.zeros(4, "f2")),
    "familiar of doubles": more_tensors(factor=np.zeros((4, 2))),
    "familiar not finite": more_tensors(scales=np.full(4, np.nan, "f4")),
    "golden without distance tolerance": with_config(lambda c: c["golden"].pop("distance_tolerance")),
    "golden without distances": golden_with(distances=None),
    "golden of too many distances": golden_with(distances=np.zeros(9, "f4")),
    "batch negative": with_config(lambda c: c.update(batch=-4)),
    "no head": with_config(lambda c: c.pop("head")),
    "no hash": with_config(lambda c: c.pop("sha256")),
    "graph cut off": cut_off("model.onnx"),
    "graph pickle": pickled("model.onnx"),
    "graph linked out": linked_out("model.onnx"),
    "graph refers out": external_weights,
    "head cut off": cut_off("head.safetensors", 0.9),
    "head empty": cut_off("head.safetensors", 0),
    "head pickle": pickled("head.safetensors"),
    "head header huge": huge_header,
    "head linked out": linked_out("head.safetensors"),
    "head wrong shape": other_tensors(weights=np.zeros((4, 3), "f4"), bias=np.zeros(3, "f4")),
    "head flat": other_tensors(weights=np.zeros(4, "f4"), bias=np.zeros(2, "f4")),
    "head without bias": other_tensors(weights=np.zeros((4, 2), "f4")),
    "head of doubles": other_tensors(weights=np.zeros((4, 2)), bias=np.zeros(2)),
    "head with half an expansion": other_tensors(
        weights=np.zeros((4, 2), "f4"), bias=np.zeros(2, "f4"), expansion=np.zeros((3, 4), "f4")
    ),
    "golden cut off": cut_off("golden.npz"),
    "golden pickle inside": pickled_golden,
    "golden pickle": pickled("golden.npz"),
    "golden linked out": linked_out("golden.npz"),
    "golden of other size": with_config(lambda c: c["preprocess"].update(height=128)),
    "run cut off": cut_off("run.json"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_spoiled_folders_are_refused_in_one_line(name, model, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    HOSTILE[name](model)
    with pytest.raises(ModelError) as caught:
        hs.load(model)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) > 20
    assert not (tmp_path / "pickle-was-run").exists()


def test_the_spoiled_tensors_would_load_unspoiled(model):
    """The hostile ones above are refused for what is wrong with them, not for all that they replace."""
    more_tensors()(model)
    golden_with()(model)
    assert hs.load(model).model_.familiar.factor.shape == (4, 2)


def test_a_graph_without_the_distance_that_the_folder_promises_is_told(model, photos):
    """A graph of format 1 with its own hash in a folder of format 2."""
    import hashlib

    from headstart import backbones
    from headstart.model import compose

    graph = compose(backbones.load("headstart-s"), read(model).head)
    (model / "model.onnx").write_bytes(graph)
    edit(model, lambda c: c["sha256"].update({"model.onnx": hashlib.sha256(graph).hexdigest()}))
    with pytest.raises(HeadstartError, match="no output distance"):
        hs.load(model).predict(sorted((photos / "validation").rglob("*.jpg")))


@pytest.mark.parametrize("name", ["config.json", "model.onnx", "head.safetensors", "golden.npz"])
def test_missing_files_are_named(name, model):
    (model / name).unlink()
    with pytest.raises(ModelError, match=name):
        hs.load(model)


def test_no_folder_says_how_to_make_one(tmp_path):
    with pytest.raises(ModelError, match="headstart fit"):
        hs.load(tmp_path / "nothing")


def test_a_folder_without_run_or_golden_still_answers(model, photos):
    (model / "run.json").unlink()
    edit(model, lambda c: c.pop("golden"))
    (model / "golden.npz").unlink()
    assert len(hs.load(model).predict(sorted((photos / "validation").rglob("*.jpg")))) == 12


def test_writing_over_a_model_replaces_it_whole(model_folder, model):
    (model / "training.svg").write_text("old")
    write(read(model_folder), model)
    assert not (model / "training.svg").exists()
    assert read(model).classes == ("disc", "stripes")


@pytest.mark.parametrize("beside", ["notes.txt", "zebra/1.jpg", ".git/HEAD", "README.md/inner", "model.onnx.bak"])
def test_what_lies_beside_a_model_is_left_alone(model_folder, model, beside):
    if beside.startswith("README"):
        (model / "README.md").unlink()
    (model / beside).parent.mkdir(exist_ok=True)
    (model / beside).write_text("years of work")
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    with pytest.raises(OptionError, match=beside.split("/")[0].replace(".", r"\.")):
        write(read(model_folder), model)
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before


FOREIGN = {
    "a JavaScript project": '{"name": "shop", "version": "1.0.0"}',
    "a checkout of the Hub": '{"architectures": ["ViTForImageClassification"], "id2label": {"0": "cat", "1": "dog"}}',
    "another library's model": '{"library_name": "keras", "format": 2}',
    "no object": '["headstart"]',
    "no JSON": "headstart",
    "nothing": "",
}


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with others"])
def test_a_config_that_is_not_ours_is_no_model(model_folder, tmp_path, text, alone):
    project = tmp_path / "project"
    project.mkdir()
    (project / "config.json").write_text(text)
    if not alone:
        (project / "index.js").write_text("code")
    with pytest.raises(OptionError, match="not a Headstart model"):
        write(read(model_folder), project)
    assert (project / "config.json").read_text() == text
    assert alone or (project / "index.js").read_text() == "code"
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_names_of_any_bytes_are_written_and_read_back(model_folder, tmp_path):
    """A byte that is not UTF-8 comes from a file name as a lone surrogate."""
    loaded = read(model_folder)
    odd = os.fsdecode(b"gu\xeape")
    run = {**loaded.run, "images": {**loaded.run["images"], "quarantined": [{"path": odd, "reason": "empty"}]}}
    again = read(write(replace(loaded, classes=("disc", odd), run=run), tmp_path / "odd"))
    assert again.classes == ("disc", odd)
    assert again.run["images"]["quarantined"][0]["path"] == odd


def test_writing_over_something_else_is_refused(model_folder, tmp_path):
    loaded = read(model_folder)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(OptionError, match="not a Headstart model"):
        write(loaded, tmp_path / "thesis")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OptionError, match="not a folder"):
        write(loaded, tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "thesis")
    with pytest.raises(OptionError, match="not a folder"):
        write(loaded, tmp_path / "link")
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"


FULL_DISK = """
import resource, signal, sys
from headstart.model import read, write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
model = read(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    write(model, sys.argv[2])
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are POSIX")
def test_a_full_disk_leaves_the_old_model_alone(model_folder, model):
    before = {p.name: p.read_bytes() for p in model.iterdir()}
    done = subprocess.run([sys.executable, "-c", FULL_DISK, model_folder, model], capture_output=True, text=True)
    assert done.stdout.startswith("ModelError Cannot write the model"), done
    assert {p.name: p.read_bytes() for p in model.iterdir()} == before
    assert [p.name for p in model.parent.iterdir()] == [model.name]  # nothing half-made lies about


KILLED = """
import os, sys
from headstart.model import folder, read
model = read(sys.argv[1])
fsync, count = os.fsync, 0
def dying(fd):
    global count
    count += 1
    if count > int(sys.argv[3]):
        os.kill(os.getpid(), 9)
    fsync(fd)
os.fsync = dying
folder.write(model, sys.argv[2])
"""


@pytest.mark.parametrize("after", [0, 3, 5])
def test_a_kill_while_writing_leaves_the_old_model_alone(model_folder, model, after):
    before = {p.name: p.read_bytes() for p in model.iterdir()}
    done = subprocess.run([sys.executable, "-c", KILLED, model_folder, model, str(after)], capture_output=True)
    assert done.returncode == -9
    assert {p.name: p.read_bytes() for p in model.iterdir()} == before


def test_the_card_tells_what_is_promised(model_folder, tmp_path):
    loaded = read(model_folder)
    some = replace(loaded.promises, set_thresholds=(0.25, 0.5), reject_threshold=0.625, coverage=0.9, false_alarms=0.1)
    told = (write(replace(loaded, promises=some), tmp_path / "some") / "README.md").read_text("utf-8")
    assert "hold the true class of 0.9 of pictures" in told
    assert "`distance` (0 to 1) is above 0.625" in told
    assert "wrongly so of 0.1 of pictures" in told
    nothing = replace(some, set_thresholds=(0.0, 0.0), reject_threshold=float("inf"))
    told = (write(replace(loaded, promises=nothing), tmp_path / "nothing") / "README.md").read_text("utf-8")
    assert "Prediction sets hold every class" in told
    assert "No picture is taken for none of these classes" in told
    assert read(tmp_path / "nothing").promises == nothing
    told = (write(replace(loaded, promises=None, familiar=None), tmp_path / "old") / "README.md").read_text("utf-8")
    assert "before there were prediction sets" in told
    assert "`distance`" not in told


def test_names_from_outside_do_not_format_the_card(model_folder, tmp_path):
    loaded = replace(read(model_folder), classes=("<script>alert(1)</script>", "[x](http://evil)\n# Big"))
    card = (write(loaded, tmp_path / "m") / "README.md").read_text("utf-8")
    assert "<script>" not in card
    assert "[x](" not in card
    assert "\n# Big" not in card
