"""A Keras network on its PyTorch backend as a torch module of its layers, in Keras's order and under Keras's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

BATCH_NORM_NAMES = {  # Keras's names to PyTorch's
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


class KerasModule(nn.Module):  # type: ignore[misc]
    """Runs a Keras model on normalised images [batch, height, width, 3]; returns the values of its outputs.

    ``layer_names`` are in Keras's order, with the layers without weights, so that the index of a layer is that in
    Keras. The tensors are Keras's own: weights are parameters, all others (statistics of batch norms) buffers. A batch
    norm in training mode follows its batches; all other layers always run in inference mode.
    """

    def __init__(self, model: Any, layer_names: tuple[str, ...]) -> None:
        super().__init__()
        model.trainable = True  # so that Keras tells weights from statistics; the plan decides what is trained
        self.keras = (model,)  # in a tuple, so that it is no submodule: the layers below hold its tensors
        self.layer_names = layer_names
        self.network = nn.ModuleDict({name: _Layer(model.get_layer(name)) for name in layer_names})
        self._training_model: tuple[tuple[str, ...], Any] = ((), model)  # batch norms in training mode, and the model
        self.eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs of the model."""
        import keras

        norms = tuple(name for name, layer in self.network.items() if layer.is_batch_norm and layer.training)
        with keras.device(str(pixels.device)):
            if norms:
                return tuple(self._with_training(norms)(pixels))
            return tuple(self.keras[0](pixels, training=False))

    def _with_training(self, norms: tuple[str, ...]) -> Any:
        """Return a model of the same layers that calls the batch norms ``norms`` in training mode."""
        import keras

        def call(layer: Any, *values: Any, **options: Any) -> Any:
            return layer(*values, **{**options, "training": True} if layer.name in norms else options)

        if self._training_model[0] != norms:
            model = keras.models.clone_model(self.keras[0], clone_function=lambda layer: layer, call_function=call)
            self._training_model = (norms, model)
        return self._training_model[1]


class _Layer(nn.Module):  # type: ignore[misc]
    """The tensors of a Keras layer as parameters and buffers."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.is_batch_norm = type(layer).__name__ == "BatchNormalization"
        self.variables: dict[str, Any] = {}
        trainable = {id(variable) for variable in layer.trainable_weights}
        for variable in layer.weights:
            name = variable.path.removeprefix(f"{layer.name}/").replace("/", "_").replace(".", "_")
            name = BATCH_NORM_NAMES.get(name, name) if self.is_batch_norm else name
            self.variables[name] = variable
            if id(variable) in trainable:
                self.register_parameter(name, variable.value)
            else:
                self.register_buffer(name, variable.value.detach())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Layer:
        """Apply ``fn`` as ``to`` and ``cpu`` do, and let Keras's variables follow."""
        super()._apply(fn, recurse)
        with torch.no_grad():
            for name, variable in self.variables.items():  # a buffer that moves becomes another tensor
                variable.value.data = getattr(self, name).data
        return self
