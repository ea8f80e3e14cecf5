"""Values of a fit's options are compared as fit evaluates them, every combination once."""

import pytest

from headstart import ImageClassifier
from headstart.compare import CompareOptions, compare_backbones, make_variants, parse_entries
from headstart.data import open_dataset
from headstart.errors import OptionError
from headstart.heads.mlp import MlpConfig


def compare(data, values, **options):
    variants = make_variants(values)
    entries = parse_entries(["headstart-s"])
    return compare_backbones(open_dataset(data), entries, CompareOptions(variants=variants, **options))


@pytest.fixture
def with_torch(monkeypatch):
    """Packages of the mlp head count as installed: nothing is trained here."""
    monkeypatch.setattr("headstart.heads.selection.find_spec", lambda name: name)


def test_every_combination_is_a_variant_in_order(with_torch):
    variants = make_variants({"head": ["ridge", "mlp"], "dropout": ["0", " 0.5"]}, seed=3)
    assert [variant.label for variant in variants] == [
        "head ridge, dropout 0.0",
        "head ridge, dropout 0.5",
        "head mlp, dropout 0.0",
        "head mlp, dropout 0.5",
    ]
    assert variants[1].options.dropout == 0.5
    assert {variant.options.seed for variant in variants} == {3}
    (variant,) = make_variants({"head": ["mlp"], "lr": ["1e-3"], "epochs": [7], "batch_size": ["8"]})
    assert variant.options.mlp == MlpConfig(learning_rate=1e-3, epochs=7, batch_size=8)
    assert variant.label == "head mlp, lr 0.001, epochs 7, batch-size 8"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dropout": ["a"]}, "--dropout 'a' cannot be read; expected a number"),
        ({"head": ["mlp"], "hidden": ["2.5"]}, "--hidden '2.5' cannot be read; expected a whole number"),
        ({"dropout": ["1"]}, "Dropout rate 1"),
        ({"dropout": ["0.2", "0.20"]}, "or one twice"),
        ({"dropout": []}, "names no value"),
        ({"head": ["lda"], "dropout": ["0.2"]}, "no closed form"),
        ({"epochs": ["3"]}, "Only the mlp head is trained; give --head mlp, or leave --epochs out"),
        ({"head": ["forest"]}, "Unknown head 'forest'"),
        ({"views": ["3"]}, "'views' cannot be compared"),
        ({"dropout": [i / 200 for i in range(101)]}, "101 combinations are more than the 100"),
    ],
)
def test_values_that_cannot_be_compared_are_errors(values, message, with_torch):
    with pytest.raises(OptionError) as error:
        make_variants(values)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("values", "label"),
    [
        ({"head": ["ridge", "mlp"]}, "head mlp"),
        ({"head": ["mlp"], "epochs": [3]}, "head mlp, epochs 3"),
        ({"epochs": [3]}, "epochs 3"),
        ({"head": ["lda"]}, "head lda"),
        ({"dropout": [0.2]}, "dropout 0.2"),
    ],
)
def test_heads_that_several_labels_cannot_have_are_refused_before_packages_are_looked_for(values, label, monkeypatch):
    monkeypatch.setattr("headstart.heads.selection.find_spec", lambda name: None)
    with pytest.raises(OptionError, match=f"the head is ridge, without dropout; leave {label} out"):
        make_variants(values, several_labels=True)
    assert len(make_variants({"head": ["auto", "ridge"]}, several_labels=True)) == 2


def test_cuts_and_options_of_heads_are_not_compared_at_once():
    with pytest.raises(OptionError, match="leave --cuts or the head's options out"):
        CompareOptions("all", variants=make_variants({"dropout": [0.2]}))


def test_dropout_rates_get_the_numbers_of_fit(photos):
    comparison = compare(photos, {"dropout": [0.0, 0.3, 0.8]})
    assert len(comparison.rows) == 3
    assert [row.log_loss for row in comparison.rows] == sorted(row.log_loss for row in comparison.rows)
    for row in comparison.rows:
        run = ImageClassifier("headstart-s", dropout=row.variant["dropout"]).fit(photos).run_
        assert list(row.cut) == run["cut"]
        assert row.accuracy.to_dict() == run["accuracy"]["leave_group_out"]
        assert comparison.name_of(row) == f"dropout {row.variant['dropout']}"
        assert row.label == f"headstart-s, dropout {row.variant['dropout']}"
    assert comparison.to_dict()["recommended"]["variant"] == dict(comparison.recommended.variant)


@pytest.mark.zoo
def test_an_mlp_head_is_compared_by_its_checks_alone(photos):
    pytest.importorskip("torch", reason="PyTorch is not installed (extra torch)")
    comparison = compare(photos, {"head": ["mlp"], "epochs": [1, 3], "hidden": [16], "lr": [1e-3]})
    for row in comparison.rows:
        config = MlpConfig(hidden=16, learning_rate=1e-3, epochs=row.variant["epochs"])
        run = ImageClassifier("headstart-s", head="mlp", mlp=config).fit(photos).run_
        assert row.log_loss == pytest.approx(run["candidates"][0]["log_loss"], rel=1e-4)
        assert row.accuracy.to_dict() == run["accuracy"]["leave_group_out"]
