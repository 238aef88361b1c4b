"""Quantization of ONNX models: a float graph and samples become a standard QDQ graph. Importing it loads nothing heavy.

`recipe.py` says what can be asked for, `quantize.py` how it is done; a step is a function from value to value.
"""
