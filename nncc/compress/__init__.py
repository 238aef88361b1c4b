"""Smaller models: what may be removed from an ONNX graph, what it costs, and the graph without it.

Each step takes an `onnx_ir.Model` and returns one, so ONNX Runtime can referee it.
"""
