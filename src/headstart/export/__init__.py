"""Export a finished model to the format of another runtime, each with the proof that it answers the same.

export.py        the flow: write the files, prove them, record the proof
registry.py      all formats by name
formats.py       what a format is, and what an export is once it is loaded
to_onnx.py       one module for each format
to_openvino.py
to_litert.py     by a converter in an environment of its own: toolchain.py, with programs and versions in toolchains/
to_savedmodel.py likewise
to_coreml.py     likewise
to_torch.py      with the graph as a module in torch_module.py, and the check of an archive in torch_archive.py
to_web.py        with the page in web/, its runtime in web_runtime.py, browser.py (it is proven in one), web_server.py
to_hub.py
labels.py        the classes as lines of a text
any_size.py      crop and resize as ONNX operators
graphs.py        the graph that is exported, and the reference
proof.py         the proof: prepared images, files, a dataset
proof_images.py  the images that an export carries, drawn by a program
proof_set.py     these images with their answers, as files
answers.py       answers, and how far two are apart
skews.py         names for differences: BGR, another resize, no EXIF, ...
recount.py       accuracy, coverage and rejections with fewer bits
about.py         what an export is, parity.json and hashes
verify.py        the replay of a proof
readme.py        the README of an export
"""

from headstart.export.export import Export, export_model
from headstart.export.formats import ExportOptions
from headstart.export.verify import ExportVerification, verify_export

__all__ = ["Export", "ExportOptions", "ExportVerification", "export_model", "verify_export"]
