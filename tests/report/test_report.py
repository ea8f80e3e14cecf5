"""Writing the page of a model folder again."""

import json
import re
import shutil

import pytest

from headstart import Compute, FitOptions, fit_dataset, open_dataset, report
from headstart.errors import ModelError, OptionError


def test_the_report_of_another_model_is_refused(folder_with_report):
    value = json.loads((folder_with_report / "report.json").read_text("utf-8"))
    value["classes"].insert(0, "another")
    value["known_classes"] = 3
    (folder_with_report / "report.json").write_text(json.dumps(value), "utf-8")
    with pytest.raises(ModelError, match="has 3 classes, but the model has 2"):
        report.rewrite_report(folder_with_report)


def test_the_page_is_written_to_the_given_path(folder_with_report, tmp_path):
    assert report.rewrite_report(folder_with_report) == folder_with_report / "report.html"
    copy = tmp_path / "page.html"
    assert report.rewrite_report(folder_with_report, copy) == copy
    assert copy.read_bytes() == (folder_with_report / "report.html").read_bytes()
    with pytest.raises(OptionError, match=r"does not end in \.html"):
        report.rewrite_report(folder_with_report, tmp_path)
    for name in ("folder.html", "thesis.html"):
        (tmp_path / name).mkdir() if name.startswith("folder") else (tmp_path / name).write_text("my thesis")
        with pytest.raises(OptionError, match="is not a report of Headstart"):
            report.rewrite_report(folder_with_report, tmp_path / name)
    assert (tmp_path / "thesis.html").read_text() == "my thesis"
    assert report.rewrite_report(folder_with_report, copy) == copy
    with pytest.raises(ModelError, match="Cannot write"):
        report.rewrite_report(folder_with_report, tmp_path / "nowhere" / "page.html")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="There is no model folder"):
        report.rewrite_report(tmp_path / "nothing")


@pytest.mark.slow
def test_a_class_of_few_images_is_told_how_many_to_add_with_an_interval(shared, tmp_path):
    """A class of 25 photographs beside one of 123: it is recognised badly, and its curve still rises."""
    for name, step in (("ants", 1), ("bees", 5)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for path in sorted((shared / "data" / "ants-bees" / "train" / name).glob("*.jpg"))[::step]:
            shutil.copy(path, tmp_path / "photos" / name)
    options = FitOptions("headstart-s", compute=Compute("onnxruntime"), cache=False)
    result = fit_dataset(open_dataset(tmp_path / "photos"), options)
    text = re.sub("<[^>]*>", "", report.write_report(result, tmp_path).read_text("utf-8"))
    (advice,) = re.findall(
        r"Photograph (\d+) more bees\. .* it is ([\d.]+)%; with (\d+) expect about (\d+)% "
        r"\(95% interval (\d+)% to (\d+)%\)",
        text,
    )
    more, now_error, total, expected, low, high = map(float, advice)
    assert more in (10, 20)
    assert total == more + 25
    assert low < expected < high < 100
    assert expected <= 0.85 * now_error
    assert "more ants" not in text
