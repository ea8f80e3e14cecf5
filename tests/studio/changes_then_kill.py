"""Run by test_kill.py: make the same changes to a project each time, and kill this process in the middle of one.

python changes_then_kill.py FOLDER SEED CALL [several]

CALL is at which call that changes the disk the process kills itself (0: never). After each change its number is
printed, which is the acknowledgement, and the labels of all images by their contents. With ``several`` an image may
have several labels.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

from headstart.studio.label_sets import state_of
from headstart.studio.project import Project


def changes(project: Project, seed: int):
    """Make changes of all kinds in an order that the seed alone decides."""
    rng = np.random.default_rng(seed)
    for number in range(14):
        ids = list(project.state.records)
        chosen = [ids[i] for i in rng.choice(len(ids), 3, replace=False)]
        kind = ("relabel", "delete", "apply", "class", "undo", "add", "rename", "accept")[
            number % 8 if number < 8 else int(rng.integers(8))
        ]
        if kind in ("relabel", "apply") and project.multi_label:
            states = {project.state.classes[0]: ("present", "absent", "unknown")[int(rng.integers(3))]}
            project.set_labels(None, chosen, states, "keep" if kind == "relabel" else "absent")
        elif kind == "relabel":
            project.relabel(None, chosen, project.state.classes[int(rng.integers(2))])
        elif kind == "delete" and len(ids) > 6:
            project.delete(None, chosen[:2])
        elif kind == "class":
            project.add_class(None, f"new in {number}")
        elif kind == "apply":
            project.apply(None)
        elif kind == "undo" and project.undo_text:
            project.undo(None)
        elif kind == "add":
            project.add(f"not an image {number}".encode(), ".jpg", project.state.classes[0], "burst")
        elif kind == "rename":
            project.rename_class(None, project.state.classes[0], f"class number {number}")
        elif kind == "accept":
            project.accept(None, chosen)
        yield labels_of(project)


def labels_of(project: Project) -> dict:
    """Return the label of each image, or what is known of its labels."""
    if project.multi_label:
        names = sorted(project.state.classes)
        cells = {id: record.labels for id, record in project.state.records.items()}
        return {id: {name: state_of(cell, name) for name in names} for id, cell in cells.items()}
    return {id: record.label for id, record in project.state.records.items()}


def kill_at(call: int) -> None:
    """Kill this process in place of its ``call``-th call that changes the disk."""
    count = 0
    for name in ("rename", "replace", "fsync", "unlink"):
        real = getattr(os, name)

        def wrapped(*args, _real=real, **kwargs):
            nonlocal count
            count += 1
            if count == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return _real(*args, **kwargs)

        setattr(os, name, wrapped)


if __name__ == "__main__":
    folder, seed, call = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    opened = Project(folder, multi_label=True if sys.argv[4:] else None)
    if call:
        kill_at(call)
    for number, labels in enumerate(changes(opened, seed)):
        print(json.dumps([number, labels]), flush=True)
