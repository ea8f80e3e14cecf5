"""What more images of a class bring: fewer images predicted back by refits, and promises only where they hold."""

import numpy as np
from helpers.heads import select

from headstart.heads import class_curve as module
from headstart.heads.class_curve import class_curve
from headstart.heads.live import LiveHead
from headstart.heads.training_set import TrainingSet


def noisy_classes(counts=(120, 200), d=24, seed=0, spread=1.0):
    """Two classes that overlap, in groups of two images; the first has fewer images."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    x = rng.normal(size=(len(labels), d)) + spread * np.eye(len(counts), d)[labels] * 1.5
    return {"deep": x.astype(np.float16)}, labels, np.arange(len(labels)) // 2


def live(values, labels, groups):
    selected = select(values, labels, groups)
    return LiveHead.of(TrainingSet.of(values, labels, groups), selected.candidates, selected.head.temperature)


def test_the_last_point_is_the_recall_held_out_and_others_are_of_fewer_images():
    values, labels, groups = noisy_classes()
    head = live(values, labels, groups)
    curve = class_curve(head, labels, groups, 0)
    held_out = head.held_out(labels, groups)
    recall = (held_out.probabilities.argmax(axis=1) == labels)[labels == 0].mean()
    assert curve.points[-1].recall == recall
    assert [point.images for point in curve.points] == [60, 80, 100, 120]
    assert curve.more == 20
    assert curve.expected.images == 140
    assert curve.holds
    assert curve.expected.interval[0] <= curve.expected.recall <= curve.expected.interval[1]
    assert curve.expected.recall >= recall


def test_a_block_is_predicted_as_by_a_head_without_it():
    values, labels, groups = noisy_classes()
    head = live(values, labels, groups)
    members = np.flatnonzero(labels == 0)
    blocks = module._blocks(groups[members], 40)
    errors = module._errors(head, labels, groups, members, blocks)
    for block in np.unique(blocks):
        gone = members[blocks == block]
        assert set(groups[gone]).isdisjoint(groups[np.setdiff1d(np.arange(len(labels)), gone)])
        merged = groups.copy()
        merged[gone] = groups[gone[0]]
        alone = head.held_out(labels, merged)
        predicted = alone.probabilities.argmax(axis=1)
        assert ((predicted != labels)[gone] == errors[blocks == block]).all()


def test_nothing_is_promised_where_the_past_would_have_been_wrong():
    """Errors that jump between the sizes: from fewer images, all were right."""
    errors = np.zeros((4, 100))
    errors[-1, :60] = 1
    curve = module._curve(errors, np.array([40.0, 60, 80, 100]), np.arange(100), 20)
    assert curve.expected is None
    assert not curve.holds
    assert "nothing is said about more" in curve.why


def test_too_few_images_or_groups_have_no_curve():
    values, labels, groups = noisy_classes((30, 60))
    head = live(values, labels, groups)
    assert class_curve(head, labels, groups, 0, 20).why == "60 images in 6 groups are needed for 20 more."
    assert class_curve(head, labels, groups, 0).more == 10
    few = np.where(labels == 0, 1000 + groups // 5, groups)
    assert class_curve(head, labels, few, 0).expected is None
