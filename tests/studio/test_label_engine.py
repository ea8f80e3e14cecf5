"""What is computed of several labels an image: the fit of the table, live figures against a new choice, comparisons."""

import csv

import numpy as np
import pytest
from helpers.labels import write_labelled

from headstart import ReadOptions, open_dataset
from headstart.check.cells import suspect_cells
from headstart.classifier import fit_multi_label
from headstart.studio import label_figures as module
from headstart.studio.engine import Engine
from headstart.studio.label_counts import label_counts
from headstart.studio.project import Project
from headstart.studio.saved import compare, read_saved, save

from .conftest import OPTIONS, write_label_project

NAMES = ("disc", "square", "stripes")


@pytest.fixture
def engine(tmp_path):
    """An engine on 40 images with several labels and 5 without any, whose full choice is made."""
    project = Project(write_label_project(tmp_path, 40, further=5))
    engine = Engine(project, OPTIONS)
    engine.start()
    engine.wait_for_full(1, 120)
    yield engine
    engine.stop()
    project.close()


def ids(engine):
    return [id for _, id in sorted((record.path, id) for id, record in engine.project.state.records.items())][5:]


def fit_of_the_table(engine):
    return fit_multi_label(open_dataset(engine.project.table, ReadOptions(multi_label=True)), OPTIONS)


def test_the_full_choice_is_the_fit_of_the_table_by_its_bytes(engine):
    engine.project.set_labels(None, ids(engine)[:2], {"square": "unknown"})
    engine.changed("labels")
    full = engine.wait_for_full(engine.project.state.version, 120)
    fitted = fit_of_the_table(engine)
    assert fitted.model.sha256 == full.result.model.sha256
    assert fitted.model.classes == full.result.model.classes == NAMES
    np.testing.assert_array_equal(fitted.selected.probabilities, full.result.selected.probabilities)


def test_validation_images_among_the_others_are_those_of_a_fit_of_the_table(tmp_path):
    folder = write_label_project(tmp_path, 40)
    table = tmp_path / "photos-labels.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [f"{row['path']},{row['labels']},{'validation' if i % 4 == 1 else 'train'}" for i, row in enumerate(rows)]
    table.write_text("\n".join(["path,labels,split", *lines]), "utf-8")
    project = Project(folder)
    engine = Engine(project, OPTIONS)
    engine.start()
    full = engine.wait_for_full(1, 120)
    fitted = fit_of_the_table(engine)
    assert fitted.model.sha256 == full.result.model.sha256
    for part in ("validation", "leave_group_out"):
        one, other = (result.evaluations[part].predictions.probabilities for result in (fitted, full.result))
        np.testing.assert_array_equal(one, other)
    engine.stop()
    project.close()


def test_live_figures_are_those_of_a_new_choice_where_the_held_one_is_made_again(engine):
    chosen = ids(engine)
    project = engine.project
    project.set_labels(None, chosen[3:5], {"stripes": "unknown"})
    project.set_labels(None, chosen[6:7], {}, "absent")
    project.delete(None, chosen[8:9])
    figures = engine.changed("all")
    assert (engine.shows, figures.is_followed, figures.measured) == ("live", True, 39)
    full = engine.wait_for_full(project.state.version, 120)
    now = engine.figures()
    assert engine.shows == "full"
    order = [now.ids.index(id) for id in full.ids]
    expected = full.result.selected.probabilities
    known = full.result.split.targets.known
    np.testing.assert_allclose(now.probabilities[order][known], expected[known], atol=1e-6)
    metrics = full.result.evaluations["leave_group_out"].metrics
    assert now.metrics.mean_average_precision.value == pytest.approx(metrics.mean_average_precision.value)
    before = [figures.ids.index(id) for id in full.ids]
    assert np.abs(figures.probabilities[before][known] - expected[known]).mean() < 0.05  # taps and penalties were held


def test_an_image_is_followed_from_its_first_label_on(engine):
    project = engine.project
    new = [id for id, record in project.state.records.items() if record.labels is None]
    before = engine.figures()
    assert (before.measured, len(before.ids)) == (40, 45)
    model = engine.full.result.model
    row = engine.images.rows[new[0]]
    guessed = model.head.probabilities(engine.images.features.matrix(model.head.taps, np.array([row])))[0]
    np.testing.assert_allclose(before.probabilities[before.ids.index(new[0])], guessed, rtol=1e-5)
    project.set_labels(None, new[:1], {"disc": "present"})
    after = engine.changed("labelled")
    assert (after.measured, len(after.ids)) == (41, 45)
    assert after.ids.index(new[0]) < after.measured
    assert {label.name: label.support for label in after.metrics.per_label}["disc"] == (
        {label.name: label.support for label in before.metrics.per_label}["disc"] + 1
    )


def test_a_burst_is_one_group_beside_the_scenes_that_are_found(engine, tmp_path):
    project = engine.project
    write_labelled(tmp_path / "burst", 3, seed=77)
    files = sorted((tmp_path / "burst").glob("*.png"))
    new = [project.add(file.read_bytes(), ".png", ("disc",), "burst-1")[0].id for file in files]
    engine.changed("burst")
    full = engine.wait_for_full(project.state.version, 120)
    group_of = dict(zip(full.ids, full.result.split.targets.groups.tolist(), strict=True))
    assert len({group_of[id] for id in new}) == 1
    others = [group for id, group in group_of.items() if id not in new]
    assert len(set(others)) < len(others) == 40  # alone named groups would leave each its own


def test_a_new_label_is_learned_as_soon_as_enough_is_known_of_it(engine):
    project, chosen = engine.project, ids(engine)
    project.add_class(None, "dots")
    project.set_labels(None, chosen[:3], {"dots": "present"})
    engine.changed("dots")
    full = engine.wait_for_full(project.state.version, 120)  # the other labels are learned all the same
    assert full.result.model.classes == NAMES
    counts = engine.label_counts
    assert dict(zip(counts.classes, counts.reasons, strict=True))["dots"] == (
        "not known of 37 of 40 labelled images; it may be of at most 20"
    )
    project.set_labels(None, chosen[3:25], {"dots": "absent"})
    figures = engine.changed("dots")
    assert (engine.shows, figures.names) == ("live", ("disc", "square", "stripes", "dots"))
    missing = {id: figures.unpredicted(row) for row, id in enumerate(figures.ids)}
    known = set(chosen[:25])  # of all others, the 5 without labels too, the model of the last choice would have to say
    assert missing == {id: [] if id in known else ["dots"] for id in engine.project.state.records}
    full = engine.wait_for_full(project.state.version, 120)
    assert full.result.model.classes == ("disc", "dots", "square", "stripes")
    assert fit_of_the_table(engine).model.sha256 == full.result.model.sha256


def test_where_clicks_cannot_be_followed_the_last_choice_predicts(engine, monkeypatch):
    monkeypatch.setattr("headstart.heads.live_labels.MAX_UNKNOWN", 0)
    engine.project.set_labels(None, ids(engine)[:1], {"disc": "unknown"})
    figures = engine.changed("unknown")
    assert (engine.shows, figures.is_followed) == ("last", False)
    expected = engine.full.result.selected.probabilities
    rows = [figures.ids.index(id) for id in engine.full.ids]
    np.testing.assert_allclose(figures.probabilities[rows][:, 1:], expected[:, 1:])
    engine.project.add_class(None, "dots")
    engine.project.set_labels(None, ids(engine)[:3], {"dots": "present"})
    engine.project.set_labels(None, ids(engine)[3:], {"dots": "absent"})
    figures = engine.changed("dots")  # can be learned, but the last choice says nothing of it
    assert (figures.names, figures.left_out) == (NAMES, ("dots",))
    assert {tuple(figures.unpredicted(row)) for row in range(len(figures.ids))} == {("dots",)}


def test_of_many_images_the_full_choice_predicts_until_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr("headstart.heads.live_labels.MANY_IMAGES", 10)
    project = Project(write_label_project(tmp_path, 40))
    engine = Engine(project, OPTIONS)
    engine.start()
    full = engine.wait_for_full(1, 120)
    metrics = full.result.evaluations["leave_group_out"].metrics
    figures = engine.figures()
    assert engine.shows == "full"
    assert figures.metrics.mean_average_precision == metrics.mean_average_precision
    first = full.ids[0]
    project.set_labels(None, [first], {}, "unknown")
    figures = engine.changed("nothing known")
    assert (engine.shows, figures.measured) == ("last", 39)
    engine.stop()
    project.close()


def test_wrong_cells_are_found_and_accepted_ones_are_not_told_again(tmp_path):
    project = Project(write_label_project(tmp_path, 60))
    first = [id for _, id in sorted((r.path, id) for id, r in project.state.records.items())]
    wrong = next(id for id in first if "square" not in project.state.records[id].labels.present)
    project.set_labels(None, [wrong], {"square": "present"})
    engine = Engine(project, OPTIONS)
    engine.start()
    engine.wait_for_full(project.state.version, 120)
    figures = engine.figures()
    cells = {(id, f.suggested_label, f.state) for id, found in figures.issues.items() for f in found}
    full = engine.full.result
    probabilities, targets = full.selected.probabilities, full.split.targets
    suspects = np.argwhere(suspect_cells(targets.values, targets.known, probabilities).is_suspect)
    states = {True: "wrong", False: "missing"}
    assert cells == {(engine.full.ids[i], NAMES[c], states[bool(targets.values[i, c])]) for i, c in suspects}
    assert (wrong, "square", "wrong") in cells
    record = project.state.records[wrong]
    assert [f.suggested_label for f in module.open_issues(figures, record)] == ["square"]
    project.accept(None, [wrong], "square")
    assert module.open_issues(figures, project.state.records[wrong]) == []
    engine.stop()
    project.close()


def test_a_new_model_is_compared_by_map_on_held_out_and_unseen_images(engine):
    project, first = engine.project, engine.full
    assert compare(engine, first).verdict == "no_saved_model"
    save(project, first)
    saved = read_saved(project)
    assert (saved.labels, saved.thresholds) == (NAMES, (0.5, 0.5, 0.5))
    np.testing.assert_allclose(
        [saved.probabilities[id] for id in first.ids], first.result.selected.probabilities, atol=1e-6
    )
    new = [id for id, record in project.state.records.items() if record.labels is None]
    project.set_labels(None, new[:3], {"disc": "present"})
    engine.changed("new")
    full = engine.wait_for_full(project.state.version, 120)
    found = compare(engine, full)
    assert (found.verdict, found.images) == ("no_difference", 43)
    metrics = full.result.evaluations["leave_group_out"].metrics
    assert found.new_mean_average_precision == pytest.approx(metrics.mean_average_precision.value)
    assert found.difference.difference == pytest.approx(
        found.new_mean_average_precision - found.saved_mean_average_precision
    )
    assert set(found.to_dict()) == {
        *("verdict", "why", "images", "new_mean_average_precision", "saved_mean_average_precision"),
        *("difference", "interval", "p"),
    }
    project.rename_class(None, "disc", "circle")
    engine.changed("renamed")
    found = compare(engine, engine.wait_for_full(project.state.version, 120))
    assert found.why.endswith("Not compared, since not both know them: circle, disc.")
    (project.folder.parent / "photos-model" / "config.json").write_text("{}")
    project.set_labels(None, new[3:4], {"square": "present"})
    engine.changed("new")
    assert compare(engine, engine.wait_for_full(project.state.version, 120)).verdict == "not_comparable"


def test_labels_are_counted_with_those_of_which_nothing_is_known(engine):
    counts = label_counts(engine.project.state, ())
    cells = [record.labels for record in engine.project.state.records.values() if record.labels is not None]
    assert counts.present.tolist() == [sum(name in cell.present for cell in cells) for name in NAMES]
    assert counts.unknown.tolist() == [5, 5, 5]
    assert (counts.unlabelled, counts.without) == (5, sum(not cell.present for cell in cells))
    assert counts.reasons == ("", "", "")


def test_without_a_label_that_some_have_and_others_do_not_nothing_is_learned(tmp_path):
    project = Project(write_label_project(tmp_path, 4, dict.fromkeys(range(4), "disc;square")), multi_label=True)
    engine = Engine(project, OPTIONS)
    engine.start()
    with pytest.raises(Exception, match="A label is needed that 2 images have and 2 others do not"):
        engine.wait_for_full(1, 60)
    assert (engine.figures(), engine.shows) == (None, "none")
    engine.stop()
    project.close()
