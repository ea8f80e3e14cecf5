"""Checkpoints. Needs PyTorch."""

import pytest
from helpers.tiny_network import INSTALLED, PLAIN, run_training, tiny_network, torch_test

from headstart.errors import ModelError, OptionError
from headstart.finetune import FineTuneConfig

if INSTALLED:
    import torch

    from headstart.finetune.checkpoint import read_checkpoint, write_checkpoint
    from headstart.finetune.freeze import make_plan
    from headstart.finetune.loop import State, make_optimizer


@torch_test
def test_damaged_and_foreign_checkpoints_are_refused(tmp_path):
    write_checkpoint(tmp_path, "x", {"a": torch.ones(3)}, {"settings": "s"})
    tensors, _ = read_checkpoint(tmp_path, "x", "s")
    assert tensors["a"].tolist() == [1, 1, 1]
    assert read_checkpoint(tmp_path, "y", "s") is None
    with pytest.raises(OptionError, match="other data or options"):
        read_checkpoint(tmp_path, "x", "t")
    for bad in ("{", "[]", '{"tensors": "../../etc/passwd"}', '{"tensors": "missing", "sha256": ""}'):
        (tmp_path / "x.json").write_text(bad)
        with pytest.raises(ModelError, match="damaged"):
            read_checkpoint(tmp_path, "x", "s")


@torch_test
def test_a_checkpoint_replaces_the_one_before_it(tmp_path):
    (tmp_path / "x.best.safetensors").write_bytes(b"weights of somebody else")
    for value in (1.0, 2.0):
        write_checkpoint(tmp_path, "x", {"a": torch.full((3,), value)}, {"settings": "s"})
    (tmp_path / "x.best.safetensors").unlink()
    assert len(list(tmp_path.iterdir())) == 2  # the JSON file and one of tensors
    assert read_checkpoint(tmp_path, "x", "s")[0]["a"].tolist() == [2, 2, 2]


class Interrupted(Exception):
    pass


@torch_test
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradual": True},
        {"optimizer": "sgd", "mixup": 0.5, "batch_norm": "update"},
        {"ema": 0.9, "optimizer": "rmsprop"},
        {"precision": "bf16", "cutmix": 0.5},
        {"precision": "fp16", "gradual": True},
    ],
)
def test_a_training_interrupted_after_any_epoch_continues_as_if_it_had_not_been(options, tmp_path):
    config = FineTuneConfig(
        unfreeze_from="all", epochs=4, learning_rate=0.01, **{**PLAIN, "batch_size": 5, "l2_sp": 0.01, **options}
    )
    uninterrupted = tiny_network().to(memory_format=torch.channels_last)
    _, epochs = run_training(uninterrupted, config)
    for last_epoch in (1, 2, 3):
        network, state = tiny_network().to(memory_format=torch.channels_last), State()

        def interrupt(network, plan, state, last_epoch=last_epoch):
            if len(state.history) == last_epoch:
                tensors, values = state.state_dict(network, plan)
                write_checkpoint(tmp_path, "x", tensors, {**values, "settings": "s"})
                raise Interrupted

        with pytest.raises(Interrupted):
            run_training(network, config, state=state, after_epoch=interrupt)
        network = tiny_network().to(memory_format=torch.channels_last)
        plan = make_plan(network, config)
        state = State(optimizer=make_optimizer(network, plan, config))
        state.load_state_dict(network, *read_checkpoint(tmp_path, "x", "s"))
        _, remaining = run_training(network, config, state=state, plan=plan)
        assert [epoch.loss for epoch in remaining] == [epoch.loss for epoch in epochs[last_epoch:]]
        for name, value in uninterrupted.state_dict().items():
            assert torch.equal(network.state_dict()[name], value), (last_epoch, name)
