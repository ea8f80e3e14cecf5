"""Work on ONNX graphs: reading, standard form, taps, cheaper equivalents, checks."""
