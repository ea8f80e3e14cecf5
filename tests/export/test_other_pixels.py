"""How far answers may be from the reference where another program decodes and resizes: as steep as the head is."""

from dataclasses import replace

import numpy as np
import pytest

from headstart.errors import VerifyError
from headstart.export import ExportOptions, export_model, verify_export
from headstart.export.about import About
from headstart.export.answers import TOLERANCES, Answers, Tolerance, other_pixels
from headstart.export.export import find_format
from headstart.export.formats import Target
from headstart.export.graphs import graph_to_export, reference
from headstart.export.proof import prove
from headstart.export.proof_set import make_proof_set
from headstart.export.skews import FILE_SKEWS, PIXEL_SKEWS, prepared
from headstart.model.compose import compose

STEEP = 20  # times: as the heads of models of statistics are
OTHER_SIZE = ExportOptions(any_size=True)


@pytest.fixture(scope="module")
def steep(fitted):
    """The small model, with scores that are so many times as far from each other."""
    head = replace(fitted.selected.head, temperature=fitted.selected.head.temperature / STEEP)
    graph = compose(fitted.data.backbone, head, fitted.selected.ood)
    return replace(fitted.model, head=head, graph=graph, golden=None)


def proven_with(model, prepare):
    """The proof of a page whose program prepares image files by ``prepare``."""
    about = About.of(model, "web", "fp32", any_size=False, scales=False)
    run = reference(graph_to_export(model, "fp32"), about)

    def on_files(files):
        return run(np.stack([prepare(data, about.preprocess) for data in files]))

    proof_set = make_proof_set(run, about)
    return prove(Target("test", "1", run, on_files), about, proof_set, find_format("web"))


def test_a_steep_head_is_exported_with_a_resize_of_its_own(fitted, steep, tmp_path):
    of_both = {}
    for name, model in (("gentle", fitted.model), ("steep", steep)):
        export = export_model(model, "onnx", tmp_path / name, OTHER_SIZE)
        of_both[name] = next(part for part in export.proof.comparisons if part.of == "image files"), export.proof
        assert verify_export(tmp_path / name).problems == ()
    score, allowed = (
        {name: value(*pair) for name, pair in of_both.items()}
        for value in (
            lambda part, proof: part.score,
            lambda part, proof: proof.tolerances["files"].score,
        )
    )
    assert score["steep"] > 0.1  # which was the limit for every head
    assert score["steep"] > 10 * score["gentle"]
    assert allowed["steep"] > score["steep"]


@pytest.mark.parametrize(
    "name",
    [
        "the EXIF orientation is not applied",
        "the image is squashed where a crop is right",
        "the whole image is taken, not its central part",
        "the resize is bicubic where bilinear is right",
        "the resize does not smooth (no antialiasing)",
        "the channels are read as BGR",
        "the mean of the input is wrong (images too dark, by about 32 of 255)",
    ],
)
@pytest.mark.parametrize("kind", ["gentle", "steep"])
def test_a_wrong_preparation_fails_however_steep_the_head_is(fitted, steep, kind, name):
    def prepare(data, preprocess):
        if name in FILE_SKEWS:
            return FILE_SKEWS[name](data, preprocess)
        return PIXEL_SKEWS[name](prepared(data, preprocess)[None])[0]

    (problem,) = proven_with({"gentle": fitted.model, "steep": steep}[kind], prepare).problems
    assert problem.startswith("image files: ")
    assert "a score before the softmax differs by" in problem


def test_an_export_whose_resize_is_another_one_is_not_written(steep, tmp_path, monkeypatch):
    from headstart.export import to_onnx

    right = to_onnx.with_any_size
    monkeypatch.setattr(to_onnx, "with_any_size", lambda graph, preprocess: right(graph, replace(preprocess, crop=1.0)))
    with pytest.raises(VerifyError, match="the whole image is taken, not its central part"):
        export_model(steep, "onnx", tmp_path / "out", OTHER_SIZE)
    assert not (tmp_path / "out").exists()


def test_the_tolerance_is_twice_what_a_level_changes_in_three_of_four_images(fitted):
    about = About.of(fitted.model, "web", "fp32", any_size=False, scales=False)
    expected = Answers(np.full((5, 2), 0.5), np.zeros(5))
    differences = np.array([0.0, 0.1, 0.2, 0.3, 9.0])  # of log-odds, half of it in the score of each class
    level_off = Answers(np.stack([p := 1 / (1 + np.exp(-differences)), 1 - p], axis=1), np.zeros(5))
    found = other_pixels(TOLERANCES["fp32"], expected, level_off, about)
    score = 2 * (np.log(0.5) - np.log(1 - p[3]))
    assert (found.score, found.probability, found.distance) == pytest.approx((score, score / 4, 0.025))
    assert other_pixels(TOLERANCES["fp32"], expected, expected, about) == Tolerance(0.025, 0.1, 0.025)
    assert other_pixels(TOLERANCES["int8"], expected, level_off, about) == TOLERANCES["int8"]


def test_a_tie_may_be_decided_otherwise_within_the_tolerance_alone(fitted):
    about = About.of(fitted.model, "web", "fp32", any_size=False, scales=False)
    run = reference(graph_to_export(fitted.model, "fp32"), about)
    proof_set = make_proof_set(run, about)
    tied = Answers(np.tile([0.5 + 1e-6, 0.5 - 1e-6], (len(proof_set.files), 1)), proof_set.answers.ood_scores)
    proof_set = replace(proof_set, answers=tied, level_off=tied)

    def problems(change):
        p = 1 / (1 + np.exp(change))
        found = replace(tied, probabilities=np.tile([p, 1 - p], (len(tied.ood_scores), 1)))
        return prove(Target("test", "1", run, lambda files: found), about, proof_set, find_format("web"))

    within, beyond = problems(0.01), problems(1.0)
    assert within.comparisons[-1].changed == len(tied.ood_scores)  # all images get the other class
    assert within.problems == ()
    (problem,) = beyond.problems
    assert "a score before the softmax differs by" in problem
