"""Names that would steer a terminal, forge a line or fill the screen are printed harmlessly by every command."""

import json
import shutil
import zipfile

import pytest

from headstart.errors import MAX_MESSAGE, DataError, MissingExtraError, missing_extra, shorten

STEERING = "\x1b[31m\x07\u202e\x9b1m\x7f\nFORGED\r"


@pytest.fixture(scope="module")
def hostile(photos, tmp_path_factory):
    """A dataset whose classes and images have such names, and a model of it, also with such a name."""
    from headstart import ImageClassifier

    folder = tmp_path_factory.mktemp("hostile") / f"data{STEERING}"
    for split, count in (("train", 6), ("validation", 4)):
        for name in ("disc", "stripes"):
            target = folder / split / f"{name}{STEERING}"
            target.mkdir(parents=True)
            for i in range(count):
                shutil.copy(photos / split / name / f"{i:03}.jpg", target / f"{STEERING}{i}.jpg")
    (folder / "train" / f"disc{STEERING}" / f"damaged{STEERING}.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (folder / "train" / f"notes{STEERING}.txt").write_text("x")
    model = folder.parent / f"model{STEERING}"
    ImageClassifier(cache=False).fit(folder).save(model)
    return folder, model


def assert_harmless(*texts):
    for text in texts:
        assert all(c.isprintable() or c in "\n\t" for c in text), ascii(text)
        assert not any(line.startswith("FORGED") for line in text.splitlines())


COMMANDS = {
    "fit": ["fit", "{data}", "-o", "{out}"],
    "fit as JSON": ["fit", "{data}", "-o", "{out}", "--json", "--no-report"],
    "predict": ["predict", "{model}", "{data}", "{data}/nothing"],
    "predict as JSON": ["predict", "{model}", "{data}", "{data}/nothing", "--json"],
    "evaluate": ["evaluate", "{model}", "{data}"],
    "evaluate as JSON": ["evaluate", "{model}", "{data}", "--json"],
    "evaluate two": ["evaluate", "{model}", "{model}", "{data}", "--min-accuracy", "1"],
    "evaluate on other classes": ["evaluate", "{model}", "{data}/train", "--layout", "image"],
    "check": ["check", "{data}", "--fix-list", "{out}.csv"],
    "check with a page": ["check", "{data}", "--report", "{out}.html"],
    "check as JSON": ["check", "{data}", "--json"],
    "compare": ["compare", "{data}", "--backbones", "headstart-s"],
    "verify": ["verify", "{model}"],
    "verify as JSON": ["verify", "{data}", "--json"],
    "report": ["report", "{model}"],
    "sample": ["sample", "horses-or-humans", "{data}"],
    "download": ["download", "{data}", "{out}"],
    "show": ["backbones", "show", "onnx:{data}.onnx"],
    "import": ["backbones", "import", "{data}", "{data}"],
    "remove": ["backbones", "remove", "{data}"],
    "pull": ["backbones", "pull", "hf:{data}"],
    "fine-tune": ["fine-tune", "{data}", "--backbone", "onnx:{data}.onnx"],
    "wrong use": ["fit", "{data}", "{data}"],
    "unknown command": ["{data}"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_prints_a_name_that_steers_the_terminal(run, hostile, name, tmp_path):
    data, model = hostile
    out = tmp_path / f"out{STEERING}"
    status, *texts = run(*(a.format(data=data, model=model, out=out) for a in COMMANDS[name]))
    assert_harmless(*texts)
    assert any("\\x1b" in text or "\\u001b" in text for text in texts), texts
    if "as JSON" in name:
        assert all(json.loads(line) for line in texts[0].splitlines())
    assert status in (0, 1, 2)


def test_names_within_archives_and_tables_are_printed_harmlessly_too(run, hostile, photos, tmp_path):
    _, model = hostile
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        for name in ("disc", "stripes"):
            for i in range(4):
                stream.write(photos / "train" / name / f"{i:03}.jpg", f"{name}\x1b[31m\u202e/{i}\x07.jpg")
        stream.writestr("disc\x1b[31m\u202e/damaged\x07.jpg", b"x")
    table = tmp_path / "photos.csv"
    table.write_text('path,label\n"nothing\x1b[31m\u202e.jpg","a\x1b[31m"\n"nothing2\x1b[31m.jpg",b\n', "utf-8")
    for arguments in (["check", archive], ["predict", model, archive], ["predict", model, table], ["fit", table]):
        assert_harmless(*run(*arguments)[1:])


def test_a_message_is_not_longer_than_a_screen(run, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("path," + ",".join(f"column{i}" for i in range(3000)) + "\n" + "a.jpg\n")
    status, out, err = run("fit", table, "--label-column", "nothing")
    assert (status, out) == (2, "")
    assert len(err) <= MAX_MESSAGE + 20
    assert "has no column 'nothing'" in err
    assert "column18 and 2981 more." in err
    table.write_text("path," + ",".join(f"{'column' * 20}{i}" for i in range(3000)) + "\n" + "a.jpg\n")
    status, out, err = run("fit", table, "--label-column", "nothing")
    assert (status, out) == (2, "")
    assert len(err) <= MAX_MESSAGE + 20
    assert "has no column 'nothing'" in err
    assert " characters ...]" in err
    status, _, err = run("fit", "x" * 5000)
    assert status == 2
    assert len(err) <= MAX_MESSAGE + 20


def test_what_is_cut_out_of_a_message_is_counted():
    text = "".join(chr(ord("a") + i % 26) for i in range(16_519))
    error = DataError(text)
    start, rest = str(error).split("[... ")
    count, end = rest.split(" characters ...]")
    assert len(str(error)) <= MAX_MESSAGE
    assert text.startswith(start)
    assert text.endswith(end)
    assert len(start) + int(count.replace(",", "")) + len(end) == len(text)
    assert error.args == (text,)
    assert str(DataError("short")) == shorten("short") == "short"
    assert len(str(missing_extra("x" * 5000, "torch"))) == MAX_MESSAGE
    assert issubclass(MissingExtraError, ImportError)
