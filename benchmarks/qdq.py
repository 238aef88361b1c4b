"""A float32 model as ONNX Runtime's own tool quantizes it, for all contestants of `bench.py --int8` alike.

Static QDQ, activations uint8 by their smallest and largest value on made-up inputs, weights int8 for each output
channel. How accurate the result is does not matter here: `nncc quantize` is there for that.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

SAMPLES = 4


def quantize(model: Path, samples: list[Mapping[str, np.ndarray]], output: Path) -> None:
    """Write the quantized form of `model`, whose shapes are static, to `output`."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(samples)

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            return next(self.left, None)

    logging.getLogger().setLevel(logging.ERROR)
    raised, prepared = output.with_suffix(".raised.onnx"), output.with_suffix(".prepared.onnx")
    proto = onnx.load(model)
    if proto.opset_import[0].version < 13:  # the first with a scale for each channel
        proto = onnx.version_converter.convert_version(proto, 17)
    onnx.save(proto, raised)
    quant_pre_process(raised, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        output,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"WeightSymmetric": True},
    )
