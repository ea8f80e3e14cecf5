"""What the program of the web page makes of an answer, run by node without the runtime."""

import json
import shutil
import subprocess
from importlib import resources

import pytest

ABOUT = {"classes": ["a", "b", "c"], "set_thresholds": [0.0, 0.2, 0.2], "reject_threshold": None}


@pytest.fixture(scope="module")
def explain(tmp_path_factory):
    """A function that explains an answer of a model, as ``model.js`` does."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node: apt-get install nodejs")
    folder = tmp_path_factory.mktemp("page")
    for name in ("model.js", "preprocess.js"):
        (folder / name).write_bytes((resources.files("headstart.export") / "web" / name).read_bytes())
    (folder / "ort.wasm.bundle.min.mjs").write_text("export const env = { wasm: {} };", "utf-8")
    (folder / "package.json").write_text('{"type": "module"}', "utf-8")
    script = (
        'import { explain } from "./model.js";'
        "const [about, answer] = JSON.parse(process.argv[2]);"
        "console.log(JSON.stringify(explain({ about }, answer)));"
    )
    (folder / "ask.js").write_text(script, "utf-8")

    def ask(about, answer):
        command = [node, "ask.js", json.dumps([about, answer])]
        completed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return json.loads(completed.stdout)

    return ask


def test_no_set_is_shown_that_was_not_measured(explain):
    answer = {"probabilities": [0.1, 0.6, 0.3], "distance": 0.9}
    found = explain(ABOUT, answer)
    assert (found["best"], found["order"], found["set"], found["rejected"]) == (1, [1, 2, 0], [1, 2, 0], False)
    found = explain({**ABOUT, "set_thresholds": [0.2] * 3}, answer)
    assert found["set"] == [1, 2]
    found = explain({**ABOUT, "set_thresholds": [0.0] * 3, "measured": False}, answer)
    assert (found["best"], found["set"], found["rejected"]) == (1, None, False)


def test_the_page_says_that_it_was_not_measured():
    page = (resources.files("headstart.export") / "web" / "app.js").read_text("utf-8")
    assert 'set === null ? "not measured"' in page
