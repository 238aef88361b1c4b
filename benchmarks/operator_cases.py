"""What `operators.py` measures: operators at sizes that they have in detectors, speech and vision models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["CASES", "Case"]

Random = np.random.Generator


def normal(*shape: int) -> Callable[[Random], np.ndarray]:
    """Numbers around 0."""
    return lambda random: random.standard_normal(shape, dtype=np.float32)


def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Callable[[Random], np.ndarray]:
    return lambda random: random.uniform(low, high, shape).astype(np.float32)


def half(*shape: int) -> Callable[[Random], np.ndarray]:
    """Numbers around 0, of 16 bits."""
    return lambda random: random.standard_normal(shape, dtype=np.float32).astype(np.float16)


def bytes_of(dtype: Any, *shape: int) -> Callable[[Random], np.ndarray]:
    """Integers of 8 bits, all values."""
    bounds = np.iinfo(dtype)
    return lambda random: random.integers(bounds.min, bounds.max, shape, dtype, endpoint=True)


def indices(high: int, *shape: int) -> Callable[[Random], np.ndarray]:
    """Whole numbers from 0 to `high` - 1."""
    return lambda random: random.integers(0, high, shape, np.int64)


def different(high: int, count: int, *shape: int) -> Callable[[Random], np.ndarray]:
    """`count` whole numbers from 0 to `high` - 1, each once, in the given shape."""
    return lambda random: random.permutation(high)[:count].reshape(shape).astype(np.int64)


def known(*values: Any, dtype: Any = np.int64, shape: tuple[int, ...] | None = None) -> Callable[[Random], np.ndarray]:
    array = np.array(values, dtype)
    return lambda random: array if shape is None else array.reshape(shape)


def boxes(count: int) -> Callable[[Random], np.ndarray]:
    """[1, count, 4]: corners of boxes in an image of 640 x 640."""

    def make(random: Random) -> np.ndarray:
        center, size = random.uniform(0, 640, (1, count, 2)), random.uniform(8, 120, (1, count, 2))
        return np.concatenate([center - size / 2, center + size / 2], -1).astype(np.float32)

    return make


@dataclass(frozen=True)
class Case:
    """One operator: `given` are its inputs at run time, `constants` follow them."""

    name: str
    op: str
    given: tuple[Callable[[Random], np.ndarray], ...]
    constants: tuple[Callable[[Random], np.ndarray] | None, ...] = ()
    outputs: int = 1
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 20
    comparable: bool = True
    """Whether there is one right answer."""

    def inputs(self) -> dict[str, np.ndarray]:
        random = np.random.default_rng(1)
        return {f"x{i}": np.asarray(make(random)) for i, make in enumerate(self.given)}

    def model(self) -> onnx.ModelProto:
        random = np.random.default_rng(2)
        given = self.inputs()
        names, initializers = list(given), []
        for i, make in enumerate(self.constants):
            names.append(f"c{i}" if make else "")
            if make:
                initializers.append(numpy_helper.from_array(np.asarray(make(random)), f"c{i}"))
        results = [f"y{i}" for i in range(self.outputs)]
        graph = helper.make_graph(
            [helper.make_node(self.op, names, results, **self.attributes)],
            "case",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
                for name, value in given.items()
            ],
            [helper.make_empty_tensor_value_info(name) for name in results],
            initializers,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)
        made = onnx.shape_inference.infer_shapes(made, data_prop=True)
        for output in made.graph.output:
            if (
                output.type.WhichOneof("value") is None
            ):  # operators that ONNX defines as functions: as large as what they are given
                output.type.CopyFrom(made.graph.input[0].type)
        return made


IMAGE = (1, 64, 128, 128)
CASES = (
    Case("topk_100_of_100k", "TopK", (normal(1, 100_000),), (known(100),), outputs=2),
    Case("topk_300_of_8400x80", "TopK", (normal(1, 8400 * 80),), (known(300),), outputs=2),
    Case("topk_5_of_1000_x128", "TopK", (normal(128, 1000),), (known(5),), outputs=2),
    Case("sort_16x1000", "TopK", (normal(16, 1000),), (known(1000),), outputs=2),
    Case(
        "nms_8400x80",
        "NonMaxSuppression",
        (boxes(8400), lambda r: (r.uniform(0, 1, (1, 80, 8400)) ** 8).astype(np.float32)),
        (known(100), known(0.5, dtype=np.float32), known(0.5, dtype=np.float32)),
    ),
    Case(
        "nms_1000x1",
        "NonMaxSuppression",
        (boxes(1000), uniform(1, 1, 1000)),
        (known(100), known(0.5, dtype=np.float32), known(0.1, dtype=np.float32)),
    ),
    Case("grid_sample", "GridSample", (normal(*IMAGE), uniform(1, 128, 128, 2, low=-1)), attributes={"mode": "linear"}),
    Case(
        "grid_sample_nearest",
        "GridSample",
        (normal(*IMAGE), uniform(1, 128, 128, 2, low=-1)),
        attributes={"mode": "nearest"},
    ),
    Case(
        "resize_cubic_x2",
        "Resize",
        (normal(1, 3, 256, 256),),
        (None, None, known(1, 3, 512, 512)),
        attributes={"mode": "cubic"},
    ),
    Case(
        "resize_linear_x2",
        "Resize",
        (normal(1, 64, 64, 64),),
        (None, None, known(1, 64, 128, 128)),
        attributes={"mode": "linear"},
    ),
    Case(
        "resize_nearest_x2",
        "Resize",
        (normal(1, 64, 64, 64),),
        (None, None, known(1, 64, 128, 128)),
        attributes={"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    Case(
        "roi_align",
        "RoiAlign",
        (normal(1, 256, 50, 50), lambda r: boxes(100)(r)[0] / 16),
        (known(*[0] * 100),),
        attributes={"output_height": 7, "output_width": 7, "sampling_ratio": 2},
    ),
    Case("cumsum_last", "CumSum", (normal(64, 4096),), (known(1),)),
    Case("cumsum_first", "CumSum", (normal(512, 512),), (known(0),)),
    Case(
        "scatter_elements",
        "ScatterElements",
        (normal(128, 4096), indices(4096, 128, 256), normal(128, 256)),
        attributes={"axis": 1, "reduction": "add"},
        opset=18,
    ),
    Case("scatter_nd_rows", "ScatterND", (normal(4096, 256), different(4096, 512, 512, 1), normal(512, 256))),
    Case("gather_nd", "GatherND", (normal(64, 64, 256), indices(64, 4096, 2))),
    Case("gather_rows", "Gather", (normal(30_522, 384), indices(30_522, 1, 128))),
    Case("gather_elements", "GatherElements", (normal(128, 4096), indices(4096, 128, 1024)), attributes={"axis": 1}),
    Case(
        "einsum_attention",
        "Einsum",
        (normal(1, 8, 128, 64), normal(1, 8, 128, 64)),
        attributes={"equation": "bhqd,bhkd->bhqk"},
    ),
    Case(
        "einsum_weights",
        "Einsum",
        (normal(1, 128, 384),),
        (normal(384, 12, 32),),
        attributes={"equation": "btd,dhk->bhtk"},
    ),
    Case("dft_512", "DFT", (normal(64, 512, 1),), attributes={"axis": 1, "onesided": 1}, opset=17),
    Case(
        "stft_1_second",
        "STFT",
        (normal(1, 16_000, 1),),
        (known(160, shape=()), lambda r: np.hanning(512).astype(np.float32), known(512, shape=())),
        attributes={"onesided": 1},
        opset=17,
    ),
    Case("lrn", "LRN", (normal(1, 96, 55, 55),), attributes={"size": 5}),
    Case(
        "max_pool_3d",
        "MaxPool",
        (normal(1, 32, 16, 56, 56),),
        attributes={"kernel_shape": [3, 3, 3], "strides": [2, 2, 2], "pads": [1] * 6},
    ),
    Case(
        "average_pool_3d",
        "AveragePool",
        (normal(1, 32, 16, 56, 56),),
        attributes={"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]},
    ),
    Case(
        "max_pool_2d",
        "MaxPool",
        (normal(1, 64, 112, 112),),
        attributes={"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4},
    ),
    Case("conv_1d", "Conv", (normal(1, 80, 3000),), (normal(384, 80, 3), normal(384)), attributes={"pads": [1, 1]}),
    Case(
        "conv_1d_depthwise",
        "Conv",
        (normal(1, 256, 1000),),
        (normal(256, 1, 31), normal(256)),
        attributes={"pads": [15, 15], "group": 256},
    ),
    Case(
        "conv_3d",
        "Conv",
        (normal(1, 16, 16, 56, 56),),
        (normal(32, 16, 3, 3, 3), normal(32)),
        attributes={"pads": [1] * 6},
    ),
    Case(
        "conv_transpose_2d",
        "ConvTranspose",
        (normal(1, 64, 64, 64),),
        (normal(64, 32, 4, 4), normal(32)),
        attributes={"strides": [2, 2], "pads": [1] * 4},
    ),
    Case(
        "conv_transpose_2x2",
        "ConvTranspose",
        (normal(1, 64, 80, 80),),
        (normal(64, 64, 2, 2), normal(64)),
        attributes={"strides": [2, 2]},
    ),
    Case(
        "conv_transpose_1d",
        "ConvTranspose",
        (normal(1, 256, 200),),
        (normal(256, 128, 16), normal(128)),
        attributes={"strides": [8], "pads": [4, 4]},
    ),
    Case("instance_norm", "InstanceNormalization", (normal(*IMAGE),), (normal(64), normal(64))),
    Case(
        "group_norm",
        "GroupNormalization",
        (normal(1, 320, 32, 32),),
        (normal(320), normal(320)),
        attributes={"num_groups": 32},
        opset=21,
    ),
    Case("layer_norm", "LayerNormalization", (normal(1, 128, 384),), (normal(384), normal(384))),
    Case("reduce_mean_middle", "ReduceMean", (normal(32, 128, 256),), (known(1),)),
    Case("reduce_sum_first", "ReduceSum", (normal(512, 1024),), (known(0),)),
    Case("reduce_max_last", "ReduceMax", (normal(512, 1000),), (known(1),)),
    Case("reduce_l2_channels", "ReduceL2", (normal(1, 256, 56, 56),), (known(1),)),
    Case("reduce_mean_images", "ReduceMean", (normal(*IMAGE),), (known(2, 3),)),
    Case("arg_max_classes", "ArgMax", (normal(1, 21, 256, 256),), attributes={"axis": 1}),
    Case("arg_max_last", "ArgMax", (normal(8400, 80),), attributes={"axis": 1}),
    Case("softmax_classes", "Softmax", (normal(1, 21, 256, 256),), attributes={"axis": 1}),
    Case("softmax_last", "Softmax", (normal(1536, 128),), attributes={"axis": -1}),
    Case("one_hot", "OneHot", (indices(1000, 512),), (known(1000), known(0, 1, dtype=np.float32))),
    Case(
        "where",
        "Where",
        (lambda r: r.uniform(size=(1, 1, 256, 256)) > 0.5, normal(8, 1, 256, 256), normal(1, 16, 1, 256)),
    ),
    Case("transpose_nchw_nhwc", "Transpose", (normal(*IMAGE),), attributes={"perm": [0, 2, 3, 1]}),
    Case("tile", "Tile", (normal(64, 128, 1, 8),), (known(1, 1, 16, 4),)),
    Case(
        "pad_reflect",
        "Pad",
        (normal(1, 64, 128, 128),),
        (known(0, 0, 3, 3, 0, 0, 3, 3),),
        attributes={"mode": "reflect"},
    ),
    Case("trilu", "Trilu", (normal(12, 512, 512),), attributes={"upper": 0}),
    Case("depth_to_space", "DepthToSpace", (normal(1, 48, 128, 128),), attributes={"blocksize": 4}),
    Case("gelu", "Gelu", (normal(128, 1536),)),
    Case("erf", "Erf", (normal(128, 1536),)),
    Case("sin", "Sin", (normal(128, 1536),)),
    Case("log", "Log", (uniform(128, 1536, low=0.1, high=4),)),
    Case("pow", "Pow", (uniform(128, 1536, low=0.1, high=4),), (known(1.7, dtype=np.float32),)),
    Case("random_normal", "RandomNormal", (), attributes={"shape": [1, 4, 64, 64], "seed": 1.0}, comparable=False),
    Case("non_zero", "NonZero", (lambda r: (r.uniform(size=(512, 512)) > 0.9).astype(np.float32),)),
    Case("unique", "Unique", (indices(1000, 10_000),), outputs=1),
    Case("col2im", "Col2Im", (normal(1, 64 * 9, 56 * 56),), (known(56, 56), known(3, 3)), attributes={"pads": [1] * 4}),
    Case(
        "conv_grouped",
        "Conv",
        (normal(1, 128, 56, 56),),
        (normal(128, 16, 3, 3), normal(128)),
        attributes={"pads": [1] * 4, "group": 8},
    ),
    Case(
        "conv_dilated",
        "Conv",
        (normal(1, 64, 64, 64),),
        (normal(64, 64, 3, 3), normal(64)),
        attributes={"pads": [2] * 4, "dilations": [2, 2]},
    ),
    Case(
        "conv_depthwise",
        "Conv",
        (normal(1, 128, 56, 56),),
        (normal(128, 1, 3, 3), normal(128)),
        attributes={"pads": [1] * 4, "group": 128},
    ),
    Case("conv_1x1", "Conv", (normal(1, 128, 28, 28),), (normal(256, 128, 1, 1), normal(256))),
    Case(
        "max_pool_5x5",
        "MaxPool",
        (normal(1, 256, 20, 20),),
        attributes={"kernel_shape": [5, 5], "pads": [2] * 4},
    ),
    Case("max_pool_2x2", "MaxPool", (normal(1, 64, 112, 112),), attributes={"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case(
        "average_pool_3x3",
        "AveragePool",
        (normal(1, 64, 56, 56),),
        attributes={"kernel_shape": [3, 3], "pads": [1] * 4},
    ),
    Case(
        "average_pool_2x2",
        "AveragePool",
        (normal(1, 64, 112, 112),),
        attributes={"kernel_shape": [2, 2], "strides": [2, 2]},
    ),
    Case("global_average_pool", "GlobalAveragePool", (normal(1, 512, 14, 14),)),
    Case("log_softmax_last", "LogSoftmax", (normal(128, 5000),), attributes={"axis": -1}),
    Case("softmax_middle", "Softmax", (normal(8, 64, 1000),), attributes={"axis": 1}),
    Case("reduce_mean_channels_last", "ReduceMean", (normal(1, 56, 56, 256),), (known(1, 2),)),
    Case("reduce_log_sum_exp", "ReduceLogSumExp", (normal(512, 1000),), (known(1),)),
    Case(
        "resize_linear_3_2",
        "Resize",
        (normal(1, 64, 40, 40),),
        (None, None, known(1, 64, 60, 60)),
        attributes={"mode": "linear"},
    ),
    Case(
        "resize_linear_aligned",
        "Resize",
        (normal(1, 32, 64, 64),),
        (None, None, known(1, 32, 128, 128)),
        attributes={"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    Case(
        "resize_linear_down",
        "Resize",
        (normal(1, 3, 480, 640),),
        (None, None, known(1, 3, 224, 224)),
        attributes={"mode": "linear"},
    ),
    Case(
        "resize_nearest_3_2",
        "Resize",
        (normal(1, 64, 40, 40),),
        (None, None, known(1, 64, 60, 60)),
        attributes={"mode": "nearest"},
    ),
    Case(
        "pad_constant",
        "Pad",
        (normal(1, 64, 128, 128),),
        (known(0, 0, 1, 1, 0, 0, 1, 1),),
        attributes={"mode": "constant"},
    ),
    Case("pad_edge", "Pad", (normal(1, 64, 128, 128),), (known(0, 0, 3, 3, 0, 0, 3, 3),), attributes={"mode": "edge"}),
    Case("relu", "Relu", (normal(128, 1536),)),
    Case("leaky_relu", "LeakyRelu", (normal(128, 1536),)),
    Case("elu", "Elu", (normal(128, 1536),)),
    Case("selu", "Selu", (normal(128, 1536),)),
    Case("sigmoid", "Sigmoid", (normal(128, 1536),)),
    Case("tanh", "Tanh", (normal(128, 1536),)),
    Case("exp", "Exp", (normal(128, 1536),)),
    Case("cos", "Cos", (normal(128, 1536),)),
    Case("sqrt", "Sqrt", (uniform(128, 1536),)),
    Case("softplus", "Softplus", (normal(128, 1536),)),
    Case("mish", "Mish", (normal(128, 1536),)),
    Case("hard_swish", "HardSwish", (normal(128, 1536),)),
    Case("gelu_tanh", "Gelu", (normal(128, 1536),), attributes={"approximate": "tanh"}),
    Case("atan", "Atan", (normal(128, 1536),)),
    Case("round", "Round", (normal(128, 1536),)),
    Case(
        "clip",
        "Clip",
        (normal(128, 1536),),
        (known(-1, dtype=np.float32, shape=()), known(1, dtype=np.float32, shape=())),
    ),
    Case("p_relu", "PRelu", (normal(*IMAGE),), (normal(64, 1, 1),)),
    Case("add_channels", "Add", (normal(*IMAGE), normal(1, 64, 1, 1))),
    Case("multiply", "Mul", (normal(128, 1536), normal(128, 1536))),
    Case(
        "batch_normalization",
        "BatchNormalization",
        (normal(*IMAGE),),
        (normal(64), normal(64), normal(64), uniform(64, low=0.5, high=2)),
    ),
    Case("mean_variance_normalization", "MeanVarianceNormalization", (normal(*IMAGE),), attributes={"axes": [2, 3]}),
    Case("lp_normalization", "LpNormalization", (normal(512, 512),), attributes={"axis": -1, "p": 2}),
    Case("rms_norm", "RMSNormalization", (normal(1, 128, 384),), (normal(384),), opset=23),
    Case("space_to_depth", "SpaceToDepth", (normal(1, 12, 256, 256),), attributes={"blocksize": 2}),
    Case("transpose_heads", "Transpose", (normal(1, 128, 12, 64),), attributes={"perm": [0, 2, 1, 3]}),
    Case("transpose_last", "Transpose", (normal(12, 128, 64),), attributes={"perm": [0, 2, 1]}),
    Case("transpose_nhwc_nchw", "Transpose", (normal(1, 224, 224, 3),), attributes={"perm": [0, 3, 1, 2]}),
    Case("concat_channels", "Concat", (normal(1, 64, 80, 80), normal(1, 64, 80, 80)), attributes={"axis": 1}),
    Case("concat_last", "Concat", (normal(128, 64), normal(128, 64)), attributes={"axis": 1}),
    Case(
        "slice_strided", "Slice", (normal(1, 64, 128, 128),), (known(0, 0), known(128, 128), known(2, 3), known(2, 2))
    ),
    Case("slice_last", "Slice", (normal(128, 1536),), (known(512), known(1024), known(1))),
    Case("split_last", "Split", (normal(1, 128, 1152),), (known(384, 384, 384),), outputs=3, attributes={"axis": 2}),
    Case("gather_columns", "Gather", (normal(128, 1024), indices(1024, 256)), attributes={"axis": 1}),
    Case("expand", "Expand", (normal(1, 64, 1, 128),), (known(8, 64, 64, 128),)),
    Case("matmul_weights", "MatMul", (normal(128, 384),), (normal(384, 1536),)),
    Case("matmul_heads", "MatMul", (normal(12, 128, 64), normal(12, 64, 128))),
    Case("matmul_vector", "MatMul", (normal(1, 1024),), (normal(1024, 1024),)),
    Case("gemm_transposed", "Gemm", (normal(64, 512),), (normal(1000, 512), normal(1000)), attributes={"transB": 1}),
    Case("equal", "Equal", (indices(10, 128, 1536), indices(10, 128, 1536))),
    Case("cast_to_float16", "Cast", (normal(128, 1536),), attributes={"to": 10}),
    Case("cast_from_float16", "Cast", (half(128, 1536),), attributes={"to": 1}),
    Case("float16_add", "Add", (half(128, 1536), half(128, 1536))),
    Case("float16_matmul", "MatMul", (half(128, 384),), (half(384, 384),)),
    Case("float16_softmax", "Softmax", (half(512, 128),), attributes={"axis": -1}),
    Case(
        "quantize",
        "QuantizeLinear",
        (normal(*IMAGE),),
        (known(0.05, dtype=np.float32, shape=()), known(128, dtype=np.uint8, shape=())),
    ),
    Case(
        "dequantize",
        "DequantizeLinear",
        (bytes_of(np.uint8, *IMAGE),),
        (known(0.05, dtype=np.float32, shape=()), known(128, dtype=np.uint8, shape=())),
    ),
    Case("dynamic_quantize", "DynamicQuantizeLinear", (normal(128, 1536),), outputs=3),
    Case("matmul_integer", "MatMulInteger", (bytes_of(np.uint8, 128, 384),), (bytes_of(np.int8, 384, 384),)),
    Case(
        "uint8_max_pool",
        "MaxPool",
        (bytes_of(np.uint8, 1, 64, 112, 112),),
        attributes={"kernel_shape": [3, 3], "strides": [2, 2]},
    ),
)
