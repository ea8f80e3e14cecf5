"""``report.json``: what was written is read back, and damaged or hostile files are refused."""

import json

import pytest

from headstart import report
from headstart.errors import ModelError
from headstart.report.data import MAX_IMAGES, Report
from headstart.report.storage import read_data, write_data


def test_the_report_is_read_back_as_written(fit_report, tmp_path):
    write_data(fit_report, tmp_path)
    restored = read_data(tmp_path)
    for name in Report.__dataclass_fields__:
        if name != "images":
            assert getattr(restored, name) == getattr(fit_report, name), name
    for image, original in zip(restored.images, fit_report.images, strict=True):
        assert (image.path, image.true_class, image.predicted_class) == (
            original.path,
            original.true_class,
            original.predicted_class,
        )
        assert image.confidence == pytest.approx(original.confidence, abs=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def value_at(*path, to):
    def change(value):
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = to

    return change


DAMAGE = {
    "format": value_at("format", to="2"),
    "no format": lambda value: value.pop("format"),
    "newer": value_at("format", to=99),
    "boolean format": value_at("format", to=True),
    "classes": value_at("classes", to="disc"),
    "class is not text": value_at("classes", 0, to=7),
    "long class": value_at("classes", 0, to="x" * 10_000),
    "known classes": value_at("known_classes", to=5),
    "known classes are a boolean": value_at("known_classes", to=True),
    "total": value_at("total_images", to=3),
    "column missing": lambda value: value["images"].pop("true_class"),
    "short column": lambda value: value["images"]["true_class"].pop(),
    "long columns": value_at("images", "path", to=["x"] * (MAX_IMAGES + 1)),
    "true class out of range": value_at("images", "true_class", 0, to=2),
    "true class negative": value_at("images", "true_class", 0, to=-1),
    "predicted class out of range": value_at("images", "predicted_class", 0, to=2),
    "predicted class is a float": value_at("images", "predicted_class", 0, to=0.0),
    "confidence out of range": value_at("images", "confidence", 0, to=1.5),
    "confidence is not a number": value_at("images", "confidence", 0, to=float("nan")),
    "set out of range": value_at("images", "set_index", 0, to=2),
    "path is not text": value_at("images", "path", 0, to=None),
    "projection short": lambda value: value["projections"][0]["x"].pop(),
    "projection out of range": value_at("projections", 0, "x", 0, to=1001),
    "projections": value_at("projections", to=[{}]),
    "evaluation": value_at("evaluations", 0, "name", to="test"),
    "confusion": value_at("evaluations", 0, "confusion", to=[[0, 0]]),
    "confusion out of range": value_at("evaluations", 0, "confusion", to=[[0, 9, 1]]),
    "bin": value_at("evaluations", 0, "reliability", 0, "count", to=0),
    "risk": value_at("evaluations", 0, "risk_coverage", 0, to=[0, float("inf")]),
    "group is a float": value_at("images", "group", 0, to=0.5),
    "group below -1": value_at("images", "group", 0, to=-2),
    "thresholds": value_at("evaluations", 0, "thresholds", to=[{}]),
    "too few thresholds": lambda value: value["evaluations"][0]["thresholds"][0]["found"].pop(),
    "more found than there are": value_at("evaluations", 0, "thresholds", 0, "found", 0, to=10**6),
    "threshold of no class": value_at("evaluations", 0, "thresholds", 0, "class_index", to=2),
    "date": value_at("date", to=20301231),
    "side": value_at("sprite", "side", to=0),
    "side out of range": value_at("sprite", "side", to=10**6),
    "columns": value_at("sprite", "columns", to=0),
    "sprite is not base64": value_at("sprite", "jpeg", to="not base64 <"),
    "sprite is not a JPEG": value_at("sprite", "jpeg", to="PHN2Zz48L3N2Zz4="),
    "sprite is not text": value_at("sprite", "jpeg", to=5),
    "thumbnail of no image": value_at("thumbnails", to={"99": ""}),
    "thumbnail": value_at("thumbnails", to={"0": "PHN2Zz4="}),
    "thumbnail name": value_at("thumbnails", to={"x": ""}),
    "thumbnails": value_at("thumbnails", to=[]),
    "finding": value_at("findings", to=[{"kind": "leak"}]),
    "findings": value_at("findings", to={}),
    "finding out of range": value_at(
        "findings",
        to=[
            {
                "kind": "leak",
                "files": [],
                "images": [40],
                "certainty": "likely",
                "confidence": 1,
                "action": "",
                "why": "",
            }
        ],
    ),
    "counts": value_at("finding_counts", to={"leak": -1}),
    "activation map out of range": value_at("activation_maps", 0, "image", to=40),
    "activation map is not a rectangle": value_at("activation_maps", 0, "grid", to=[[1.0], [1.0, 2.0]]),
    "activation map empty": value_at("activation_maps", 0, "grid", to=[]),
    "activation map infinite": value_at("activation_maps", 0, "score", to=float("inf")),
    "seconds": value_at("seconds", to="1"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_refused_in_one_line(folder_with_report, name):
    value = json.loads((folder_with_report / "report.json").read_text("utf-8"))
    DAMAGE[name](value)
    (folder_with_report / "report.json").write_text(json.dumps(value), "utf-8")
    with pytest.raises(ModelError) as error_info:
        report.rewrite_report(folder_with_report)
    assert "\n" not in str(error_info.value)
    assert str(folder_with_report) in str(error_info.value)
    assert not (folder_with_report / "report.html").exists()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b"1e999", b'{"format":5}'])
def test_a_file_that_is_not_a_report_is_refused(folder_with_report, data):
    (folder_with_report / "report.json").write_bytes(data)
    with pytest.raises(ModelError, match=r"report\.json is damaged"):
        report.rewrite_report(folder_with_report)


@pytest.mark.parametrize(
    ("version", "remedy"), [(1, "older than format 5.*anew fit again: headstart fit"), (6, "newer.*upgrade headstart")]
)
def test_another_format_is_named_with_its_remedy(folder_with_report, version, remedy):
    (folder_with_report / "report.json").write_text(json.dumps({"format": version}), "utf-8")
    with pytest.raises(ModelError, match=f"has format {version}, {remedy}"):
        report.rewrite_report(folder_with_report)


def test_a_missing_linked_or_too_large_file_is_refused(folder_with_report, tmp_path, monkeypatch):
    path = folder_with_report / "report.json"
    monkeypatch.setattr("headstart.report.storage.MAX_BYTES", 100)
    with pytest.raises(ModelError, match="more than 100 bytes"):
        report.rewrite_report(folder_with_report)
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ModelError, match="a link out of the folder"):
        report.rewrite_report(folder_with_report)
    path.unlink()
    with pytest.raises(ModelError, match="by headstart fit without --no-report"):
        report.rewrite_report(folder_with_report)
