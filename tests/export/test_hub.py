"""``--to hub``: the files of the Hugging Face Hub, in its words, as transformers.js loads them."""

import io
import json
import os
import shutil
import subprocess
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from headstart import Compute, Predictor
from headstart.errors import OptionError
from headstart.export import verify_export
from headstart.export.about import About
from headstart.export.browser import find_chromium
from headstart.export.to_hub import preparation, prepare
from headstart.images.preprocess import Preprocess
from headstart.model.folder import read_model


def about(**settings):
    return About("hub", "fp32", False, ("a", "b"), Preprocess(**settings), None)


def test_the_graph_gives_the_calibrated_scores(exports, model_folder):
    model = read_model(model_folder)
    session = onnxruntime.InferenceSession(exports("hub") / "onnx" / "model.onnx")
    assert [i.name for i in session.get_inputs()] == ["pixel_values"]
    values = model.golden.pixels.transpose(0, 3, 1, 2).astype(np.float32)
    logits, distance = session.run(["logits", "distance"], {"pixel_values": values})
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, model.golden.probabilities, atol=1e-5)
    np.testing.assert_allclose(distance, model.golden.ood_scores, atol=1e-5)


def test_the_descriptions_are_in_the_words_of_the_hub(exports):
    folder = exports("hub")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["id2label"] == {"0": "disc", "1": "stripes"}
    assert config["model_type"] == "mobilenet_v2"
    steps = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
    assert steps["size"] == {"shortest_edge": 183}
    assert steps["crop_size"] == {"height": 160, "width": 160}
    card = (folder / "README.md").read_text("utf-8").split("---\n")[1]
    metrics = json.loads(card)["model-index"][0]["results"][0]["metrics"]
    assert [metric["type"] for metric in metrics] == ["accuracy", "accuracy"]


def test_a_difference_on_files_is_a_remark_and_one_of_the_graph_a_problem(exports, copied):
    parity = json.loads((exports("hub") / "parity.json").read_text("utf-8"))
    assert parity["problems"] == []
    assert parity["proof"]["comparisons"][0]["score"] < 1e-3
    assert "transformers.js in a browser" in parity["not_proven"][0]["what"]
    folder = copied("hub")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["id2label"] = {"0": "stripes", "1": "disc"}
    (folder / "config.json").write_text(json.dumps(config))
    problems = verify_export(folder).problems
    assert "config.json names other classes, or in another order" in problems


def test_files_are_prepared_as_the_steps_say():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    found = prepare(stream.getvalue(), preparation(about(height=112, width=112)))
    expected = np.asarray(image.resize((170, 128), Image.Resampling.BILINEAR))[8:120, 29:141]
    np.testing.assert_array_equal(found, expected)
    squashed = prepare(stream.getvalue(), preparation(about(height=50, width=90, resize="squash", crop=1.0)))
    np.testing.assert_array_equal(squashed, np.asarray(image.resize((90, 50), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("settings", [{"height": 50, "width": 90}, {"height": 50, "width": 50, "resize": "squash"}])
def test_preparation_that_the_hub_cannot_say_is_an_error(settings):
    with pytest.raises(OptionError, match="The Hub's words cannot say"):
        preparation(about(**settings))


SCRIPT = """
import { pipeline, env } from "@huggingface/transformers";
env.allowRemoteModels = false;
env.localModelPath = process.argv[2];
const classify = await pipeline("image-classification", process.argv[3], { dtype: "fp32", device: "cpu" });
console.log(JSON.stringify(await Promise.all(process.argv.slice(4).map((path) => classify(path, { top_k: 2 })))));
"""


@pytest.mark.slow
def test_transformers_js_loads_the_folder_and_answers(exports, model_folder, photos):
    modules = os.environ.get("HEADSTART_TRANSFORMERS_JS")
    if modules is None:
        pytest.skip("needs @huggingface/transformers: set HEADSTART_TRANSFORMERS_JS to a folder where npm installed it")
    folder = exports("hub")
    paths = [str(path) for path in sorted((photos / "validation").rglob("*.jpg"))]
    expected = Predictor.load(model_folder, Compute("onnxruntime")).predict(paths)
    command = ["node", "--input-type=module", "-", str(folder.parent), folder.name, *paths]
    completed = subprocess.run(command, cwd=modules, input=SCRIPT, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    for i, answer in enumerate(json.loads(completed.stdout.splitlines()[-1])):
        assert answer[0]["label"] == expected.classes[expected.predicted[i]]
        assert answer[0]["score"] == pytest.approx(expected.confidence[i], abs=0.1)  # another resize


PAGE_SCRIPT = """
const [paths, done] = arguments;
import("/transformers.min.js").then(async ({ pipeline, env }) => {
  env.allowLocalModels = true;
  env.allowRemoteModels = false;
  env.localModelPath = "/models/";
  env.backends.onnx.wasm.wasmPaths = new URL("/ort/", location.href).href;
  env.backends.onnx.wasm.numThreads = 1;
  const classify = await pipeline("image-classification", "export", { dtype: "fp32", device: "wasm" });
  const answers = [];
  for (const path of paths) answers.push(await classify(path, { top_k: 2 }));
  done(answers);
}).catch((error) => done(String(error)));
"""


class _Files(SimpleHTTPRequestHandler):
    """Serves folders by the first part of a path, and says of nothing that it is asked for."""

    folders: dict[str, Path]

    def translate_path(self, path):
        first, _, rest = path.lstrip("/").partition("/")
        if first in self.folders:
            return str(self.folders[first] / rest)
        return str(self.folders[""] / first)

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_transformers_js_loads_the_folder_in_a_browser(exports, model_folder, photos, tmp_path):
    """Its resize there is another one by design: changed answers are printed, not refused; the graph is the same."""
    modules = os.environ.get("HEADSTART_TRANSFORMERS_JS")
    if modules is None:
        pytest.skip("needs @huggingface/transformers: set HEADSTART_TRANSFORMERS_JS to a folder where npm installed it")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
    from selenium.webdriver.chrome.service import Service

    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("needs a browser: apt-get install chromium-driver")
    images = photos / "validation"
    folders = {
        "": Path(modules) / "node_modules" / "@huggingface" / "transformers" / "dist",
        "ort": Path(modules) / "node_modules" / "onnxruntime-web" / "dist",
        "models": tmp_path,
        "images": images,
    }
    shutil.copytree(exports("hub"), tmp_path / "export")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Files", (_Files,), {"folders": folders}))
    Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    options.binary_location = find_chromium()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    paths = sorted(images.rglob("*.jpg"))
    expected = Predictor.load(model_folder, Compute("onnxruntime")).predict([str(path) for path in paths])
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser.set_script_timeout(300)
        browser.get(f"http://127.0.0.1:{server.server_port}/models/export/config.json")
        urls = [f"/images/{path.relative_to(images).as_posix()}" for path in paths]
        answers = browser.execute_async_script(PAGE_SCRIPT, urls)
    finally:
        browser.quit()
        server.shutdown()
        server.server_close()
    assert isinstance(answers, list), answers
    by_name = [{part["label"]: part["score"] for part in answer} for answer in answers]
    found = np.array([[scores[name] for name in expected.classes] for scores in by_name])
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-3)
    changed = int((found.argmax(axis=1) != expected.predicted).sum())
    largest = float(np.abs(found - expected.probabilities).max())
    print(f"transformers.js in Chromium: {changed} of {len(paths)} answers change, scores by up to {largest:.2f}")
    assert changed <= len(paths) // 4
