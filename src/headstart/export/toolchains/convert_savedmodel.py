"""Convert ONNX to a TensorFlow SavedModel. Runs in the toolchain "savedmodel":

python convert_savedmodel.py MODEL.onnx OUT
"""

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow
from onnx_tools import run_onnx2tf

depthwise_convolution, largest = tensorflow.nn.depthwise_conv2d, tensorflow.argmax


def with_two_dilations(*arguments: Any, dilations: Any = None, **options: Any) -> Any:
    """Call TensorFlow's depthwise convolution, which takes two dilations where onnx2tf 2.6.9 gives four."""
    if dilations is not None and len(dilations) == 4:
        dilations = dilations[1:3]
    return depthwise_convolution(*arguments, dilations=dilations, **options)


def largest_along_axis(values: Any, axis: Any, **options: Any) -> Any:
    """Call TensorFlow's argmax, which takes a number as its axis where onnx2tf 2.6.9 gives a list of one."""
    return largest(values, tensorflow.reshape(axis, []), **options)


def reshape_as_given(kernel: Callable[..., None]) -> Callable[..., None]:
    """Return onnx2tf's reshape which takes the shape that is given as an input where none is among the options.

    onnx2tf 2.6.9 takes an empty one there, as transformers with a free batch have it, for the shape of a number.
    """

    def reshape(executor: Any, op: Any, env: Any) -> None:
        if len(op.inputs) > 1 and not op.options.get("newShape"):
            op.options.pop("newShape", None)
        kernel(executor, op, env)

    return reshape


def convert(source: Path, target: Path) -> None:
    """Convert, for one image at a time, and keep what is a SavedModel."""
    tensorflow.nn.depthwise_conv2d = with_two_dilations  # before onnx2tf, which is imported late, takes it
    tensorflow.argmax = largest_along_axis
    from onnx2tf.tflite_builder import saved_model_exporter

    kernels = saved_model_exporter._REGISTERED_KERNELS
    kernels["RESHAPE"] = reshape_as_given(kernels["RESHAPE"])
    with tempfile.TemporaryDirectory() as folder:
        results = run_onnx2tf(source, Path(folder), flatbuffer_direct_output_saved_model=True)
        (found,) = [path.parent for path in results.rglob("saved_model.pb")]
        target.mkdir()
        for name in ("saved_model.pb", "variables", "assets"):
            if (found / name).is_dir():
                shutil.copytree(found / name, target / name)
            elif (found / name).exists():
                shutil.copy(found / name, target / name)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
