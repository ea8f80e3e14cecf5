"""Class weights, costs and thresholds on the command line."""

import csv
import io
import json

import pytest

COSTS = "truth,disc,stripes\ndisc,0,1\nstripes,20,0\n"


@pytest.fixture
def costs(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text(COSTS)
    return path


def test_costs_from_fit_to_predict_and_evaluate(run, photos, tmp_path, costs):
    model = tmp_path / "model"
    status, out, _ = run("fit", photos, "-o", model, "--backbone", "headstart-s", "--costs", costs, "--no-report")
    assert status == 0
    assert "Decisions   minimise the costs in prices.csv" in out
    assert out.count("Cost        ") == 2
    status, out, _ = run("evaluate", model, photos)
    assert "Decisions   minimise the costs in prices.csv" in out
    evaluation = json.loads(run("evaluate", model, photos, "--json")[1])
    lines = [
        json.loads(line)
        for line in run("predict", model, photos / "validation", "--top", "2", "--json")[1].splitlines()
    ]
    decided = [entry["classes"][0] for entry in lines]
    for entry in lines:
        probability = {c["class"]: c["probability"] for c in entry["classes"]}
        expected = {"disc": 20 * probability["stripes"], "stripes": probability["disc"]}
        assert entry["classes"][0]["class"] == min(expected, key=expected.get)
    names = [entry["path"].split("/")[-2] for entry in lines]
    wrong = [(t, d["class"]) for t, d in zip(names, decided, strict=True) if t != d["class"]]
    assert evaluation["accuracy"]["correct"] == len(names) - len(wrong)
    total = sum(20 if truth == "stripes" else 1 for truth, _ in wrong)
    assert evaluation["cost"]["value"] == pytest.approx(total / len(names))
    assert evaluation["decision"]["source"] == "prices.csv"
    rows = list(csv.DictReader(io.StringIO(run("predict", model, photos / "validation", "--csv")[1])))
    assert [row["class_1"] for row in rows] == [d["class"] for d in decided]
    text = run("predict", model, photos / "validation")[1].splitlines()
    assert [line.split("\t")[-2] for line in text if "could be" not in line][:1] == [decided[0]["class"]]


def test_class_weights_and_thresholds_are_printed_and_in_the_json(run, photos, tmp_path):
    weights = tmp_path / "w.json"
    weights.write_text('{"disc": 1, "stripes": 4}')
    arguments = ("fit", photos, "-o", tmp_path / "m", "--backbone", "headstart-s", "--class-weight", weights)
    status, out, _ = run(*arguments, "--threshold", "stripes=0.25", "--no-report", "--json")
    assert status == 0
    value = json.loads(out)
    assert value["class_weight"]["weights"] == {"disc": 1, "stripes": 4}
    assert value["decision"]["kind"] == "thresholds"
    assert "cost" not in value
    status, out, _ = run(*arguments[:-1], "balanced", "--no-report")
    assert "Weights     disc 1, stripes 1\n" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--threshold", "disc"), "--threshold 'disc' cannot be read; expected a class and a probability"),
        (("--threshold", "=0.5"), "cannot be read"),
        (("--threshold", "disc=nan"), "cannot be read"),
        (("--threshold", "disc=2"), "cannot be read"),
        (("--threshold", "disc=0.2", "--threshold", "disc=0.3"), "two thresholds"),
        (("--threshold", "zebra=0.5"), "no class is called 'zebra'; the classes are 'disc', 'stripes'"),
        (("--class-weight", "weights.csv"), "There is no weights.csv"),
        (("--costs", "costs.csv"), "There is no costs.csv"),
    ],
)
@pytest.mark.parametrize("how", [(), ("--dry-run",)], ids=["fit", "dry-run"])
def test_what_cannot_be_used_is_one_line_before_any_work(run, photos, tmp_path, options, message, how):
    status, out, err = run("fit", photos, "-o", tmp_path / "m", *options, *how)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_costs_and_thresholds_exclude_each_other(run, photos, tmp_path, costs):
    status, _, err = run("fit", photos, "-o", tmp_path / "m", "--costs", costs, "--threshold", "disc=0.5")
    assert status == 2
    assert "give one of them" in err
