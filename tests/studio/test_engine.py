"""What is computed of a project: bursts as groups, live figures against a new choice, saved models against new ones."""

import time

import numpy as np
import pytest
from helpers.graphs import trained_network
from helpers.photos import write_photos

from headstart import Compute, FitOptions, backbones, fit_dataset, open_dataset
from headstart.backbones.scaling import USUAL, Scaling
from headstart.errors import HeadstartError, OptionError
from headstart.studio import live as module
from headstart.studio.engine import Engine
from headstart.studio.figures import share
from headstart.studio.live import labels_of
from headstart.studio.project import Project
from headstart.studio.saved import compare, read_saved, save

OPTIONS = FitOptions("headstart-s", compute=Compute("onnxruntime"), cache=False)


@pytest.fixture
def engine(tmp_path):
    """An engine on two classes of eight images each, whose full choice is made."""
    project = Project(write_photos(tmp_path / "photos", 8))
    engine = Engine(project, OPTIONS)
    engine.start()
    engine.wait_for_full(1, 120)
    yield engine
    engine.stop()
    project.close()


def add(engine, folder, count, group):
    """Add new photos of discs as one burst, and wait until they are followed."""
    files = sorted((write_photos(folder, count, seed=7) / "disc").glob("*.jpg"))
    records = [engine.project.add(file.read_bytes(), ".jpg", "disc", group)[0] for file in files]
    engine.changed("added")
    ids = [record.id for record in records]
    wait_until(lambda: engine.embedding["done"] == engine.embedding["total"])
    wait_until(lambda: set(ids) <= set(engine.live.ids) or not engine.live.has_room_for(count))  # heads follow features
    return ids


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def group_of(engine, ids):
    figures = engine.figures()
    return {int(figures.groups[figures.ids.index(id)]) for id in ids}


@pytest.mark.parametrize("group", ["", "specimen"])
def test_validation_images_among_the_others_are_those_of_a_fit_of_the_table(tmp_path, group):
    """Also the groups by which they count, which the table names or does not."""
    folder = write_photos(tmp_path / "photos", 12)
    files = sorted(folder.glob("*/*.jpg"))
    splits = [f"validation,{group}" if i % 4 == 1 else "train," for i in range(len(files))]
    rows = [
        f"photos/{file.parent.name}/{file.name},{file.parent.name},{split}"
        for file, split in zip(files, splits, strict=True)
    ]
    table = tmp_path / "photos-labels.csv"
    table.write_text("\n".join(["path,label,split,group", *rows]), "utf-8")
    fitted = fit_dataset(open_dataset(table), OPTIONS)
    project = Project(folder)
    engine = Engine(project, OPTIONS)
    engine.start()
    full = engine.wait_for_full(1, 120).result
    accuracies = [result.evaluations["validation"].accuracy for result in (fitted, full)]
    assert accuracies[0] == accuracies[1]
    assert accuracies[1].method == ("groups resampled" if group else "Wilson")
    one, other = (result.evaluations["validation"].predictions for result in (fitted, full))
    np.testing.assert_array_equal(one.truth, other.truth)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)
    engine.stop()
    project.close()


def test_a_burst_is_one_group_at_once_and_in_the_full_choice(engine, tmp_path):
    ids = add(engine, tmp_path / "burst", 4, "burst-1")
    assert len(group_of(engine, ids)) == 1
    version = engine.project.state.version
    full = engine.wait_for_full(version, 120)
    assert len(group_of(engine, ids)) == 1
    assert len({full.held_out[id][2] for id in ids}) == 1
    later = add(engine, tmp_path / "burst more", 6, "burst-1")
    assert group_of(engine, later) == group_of(engine, ids)
    apart = [engine.project.add(b"no image", ".jpg", "disc", None)[0].id]
    engine.changed("added")
    wait_until(lambda: engine.embedding["failed"] == 1)
    assert apart[0] not in engine.figures().ids
    assert engine.images.errors[apart[0]]


def test_live_figures_are_those_of_the_held_head_on_the_labels_as_they_are(engine):
    ids = list(engine.project.state.records)
    engine.project.relabel(None, ids[:3], "stripes")
    engine.project.delete(None, ids[5:7])
    figures = engine.changed("both")
    live, state = engine.live, engine.project.state
    labels = labels_of(live, state)
    assert (labels >= 0).sum() == 14
    held_out = live.head.held_out(labels, live.groups)
    np.testing.assert_allclose(figures.probabilities, held_out.probabilities)
    assert figures.accuracy.value == np.mean(figures.predicted == figures.labels)
    assert engine.shows == "live"
    full = engine.wait_for_full(state.version, 120)
    assert engine.shows == "full"
    expected = full.result.evaluations["leave_group_out"].predictions.probabilities
    order = [engine.figures().ids.index(id) for id in full.ids]
    np.testing.assert_allclose(engine.figures().probabilities[order], expected, atol=1e-5)


def test_images_beyond_what_can_be_followed_wait_for_the_full_choice(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_CHANGES", 2)
    ids = add(engine, tmp_path / "many", 4, None)
    assert not set(ids) & set(engine.live.ids)
    engine.wait_for_full(engine.project.state.version, 120)
    assert set(ids) <= set(engine.live.ids)


def test_one_class_has_no_choice_and_the_state_says_why(tmp_path):
    project = Project(write_photos(tmp_path / "photos", 3, classes=("disc",)))
    engine = Engine(project, OPTIONS)
    engine.start()
    with pytest.raises(Exception, match="Two classes"):
        engine.wait_for_full(1, 60)
    assert (engine.figures(), engine.shows, engine.full_state) == (None, "none", "none")
    engine.stop()
    project.close()


def test_a_new_model_is_compared_on_held_out_and_unseen_images(engine, tmp_path):
    project = engine.project
    assert compare(engine, engine.full).verdict == "no_saved_model"
    first = engine.full
    save(project, first)
    assert read_saved(project).predicted == {id: predicted for id, (_, predicted, _) in first.held_out.items()}
    ids = add(engine, tmp_path / "more", 3, None)
    full = engine.wait_for_full(project.state.version, 120)
    comparison = compare(engine, full)
    assert comparison.images == 19  # 16 held out by both, 3 that the saved model never saw
    new = full.held_out
    assert comparison.new_accuracy == np.mean([label == predicted for label, predicted, _ in new.values()])
    assert set(ids) <= set(new)
    assert comparison.verdict == "no_difference"
    (project.folder.parent / "photos-model" / "config.json").write_text("{}")
    assert compare(engine, full).verdict == "not_comparable"


def test_a_saved_model_that_predicts_a_class_by_an_old_name_is_not_compared(engine):
    save(engine.project, engine.full)
    engine.project.rename_class(None, "disc", "circle")
    full = engine.wait_for_full(engine.project.state.version, 120)
    assert {label for label, _, _ in full.held_out.values()} == {"circle", "stripes"}
    comparison = compare(engine, full)
    assert comparison.verdict == "not_comparable"
    assert comparison.why == "The saved model predicts disc, a class that is not there any more."


def test_images_for_validation_and_test_are_not_followed(tmp_path):
    folder = tmp_path / "photos"
    write_photos(folder / "train", 8)
    write_photos(folder / "validation", 2, seed=1)
    write_photos(folder / "test", 3, seed=2)
    project = Project(folder)
    engine = Engine(project, OPTIONS)
    engine.start()
    engine.wait_for_full(1, 120)
    records = project.state.records
    assert {record.split for record in records.values()} == {"train", "validation", "test"}
    assert engine.images.rows.keys() == records.keys()
    assert set(engine.live.ids) == {id for id, record in records.items() if record.split == "train"}
    assert len(engine.live.ids) == 16
    engine.stop()
    project.close()


def test_a_scaling_that_shows_once_there_are_images_is_that_of_all_features(tmp_path):
    source = write_photos(tmp_path / "source", 8)
    id = trained_network(Scaling(*USUAL["ImageNet's mean and deviation"]), open_dataset(source), tmp_path / "net.onnx")
    project = Project(tmp_path / "photos")  # empty: what is assumed stands
    engine = Engine(project, FitOptions(id, compute=Compute("onnxruntime"), cache=False))
    engine.start()
    wait_until(lambda: engine.images is not None)
    assumed = engine.images
    files = sorted(source.rglob("*.jpg"))
    project.add_many((file.read_bytes(), ".jpg", file.parent.name, None) for file in files)
    engine.changed("added")
    engine.wait_for_full(project.state.version, 120)
    wait_until(lambda: engine.live is not None and engine.shows == "full" and engine.full_state == "done")
    full = engine.full
    assert not assumed.is_of(full.result.data.backbone)
    assert engine.images.is_of(full.result.data.backbone)
    expected = full.result.evaluations["leave_group_out"].predictions.probabilities
    order = [engine.figures().ids.index(id) for id in full.ids]
    np.testing.assert_allclose(engine.figures().probabilities[order], expected, atol=1e-5)
    found = engine.images
    disc = (write_photos(tmp_path / "more", 1, seed=7) / "disc" / "000.jpg").read_bytes()
    project.add(disc, ".jpg", "disc", None)
    engine.changed("added")
    engine.wait_for_full(project.state.version, 120)
    assert engine.images is found  # nothing is computed anew
    engine.stop()
    project.close()


def test_a_backbone_that_there_is_not_is_the_state_and_no_error_of_the_thread(tmp_path):
    project = Project(write_photos(tmp_path / "photos", 3))
    engine = Engine(project, FitOptions("nonsense", compute=Compute("onnxruntime"), cache=False))
    engine.start()
    with pytest.raises(OptionError, match="nonsense") as told:
        backbones.load("nonsense")
    with pytest.raises(HeadstartError, match="nonsense"):
        engine.wait_for_full(1, 60)
    assert (engine.full_state, engine.error) == ("failed", str(told.value))
    engine.stop()  # the thread has ended, and an error that left it would fail this test
    project.close()


def test_who_waits_too_short_is_told_that_the_choice_is_still_being_made(tmp_path):
    project = Project(write_photos(tmp_path / "photos", 3))
    engine = Engine(project, OPTIONS)  # not started: nothing is ever made
    with pytest.raises(HeadstartError, match="still being made; try again when the page says that it is"):
        engine.wait_for_full(1, 0.01)
    project.close()


def test_the_interval_is_wilsons_at_the_number_of_independent_images():
    rng = np.random.default_rng(0)
    correct, groups = rng.random(400) < 0.9, np.arange(400)
    from headstart.stats.accuracy import leave_one_group_out_accuracy

    for group in (groups, groups // 4):
        expected = leave_one_group_out_accuracy(correct, group, resamples=4000).interval
        assert share(correct, group).interval == pytest.approx(expected, abs=0.004)
    assert share(np.ones(10, bool), np.arange(10)).interval[0] == pytest.approx(0.722, abs=0.001)
