"""A Keras network on PyTorch as a torch module of its layers, in Keras' own order and under Keras' own names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


class KerasModule(nn.Module):  # type: ignore[misc]
    """Runs the Keras ``model`` on scaled pictures [batch, height, width, 3]; gives the values of its outputs.

    ``order`` names the layers, those without weights too, so that a number means what it does in Keras. The tensors are
    Keras' own: weights are parameters, all else (a batch norm's statistics) buffers. A batch norm in training
    mode follows its batches; everything else is always in inference mode.
    """

    def __init__(self, model: Any, order: tuple[str, ...]) -> None:
        super().__init__()
        model.trainable = True  # for Keras to tell weights from statistics; the plan says what is trained
        self.keras = (model,)  # not a module of this one: the layers below hold its tensors
        self.order = order
        self.network = nn.ModuleDict({name: _Layer(model.get_layer(name)) for name in order})
        self.following: dict[tuple[str, ...], Any] = {}
        self.eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        import keras

        learning = tuple(name for name, layer in self.network.items() if layer.norm and layer.training)
        with keras.device(str(pixels.device)):
            if learning:
                return tuple(self._following(learning)(pixels))
            return tuple(self.keras[0](pixels, training=False))

    def _following(self, learning: tuple[str, ...]) -> Any:
        """The same layers, those that are learning called in training mode."""
        import keras

        def call(layer: Any, *values: Any, **how: Any) -> Any:
            return layer(*values, **{**how, "training": True} if layer.name in learning else how)

        if learning not in self.following:
            self.following = {
                learning: keras.models.clone_model(
                    self.keras[0], clone_function=lambda layer: layer, call_function=call
                )
            }
        return self.following[learning]


class _Layer(nn.Module):  # type: ignore[misc]
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.norm = type(layer).__name__ == "BatchNormalization"
        self.variables: dict[str, Any] = {}
        learned = {id(variable) for variable in layer.trainable_weights}
        for variable in layer.weights:
            name = variable.path.removeprefix(f"{layer.name}/").replace("/", "_").replace(".", "_")
            name = NORM.get(name, name) if self.norm else name
            self.variables[name] = variable
            if id(variable) in learned:
                self.register_parameter(name, variable.value)
            else:
                self.register_buffer(name, variable.value.detach())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Layer:
        super()._apply(fn, recurse)
        with torch.no_grad():
            for name, variable in self.variables.items():  # a buffer that moves is another tensor
                variable.value.data = getattr(self, name).data
        return self
