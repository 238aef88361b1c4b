"""ONNX operators of which we make Relax expressions, one a file; `nncc.frontend.converters` lists them."""
