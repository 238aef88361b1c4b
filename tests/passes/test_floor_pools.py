"""A window that would begin behind the image is no window, whatever shape inference says."""

from __future__ import annotations

import pytest
from compiled import Net, agrees

from nncc.frontend.onnx import import_onnx


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool", "LpPool"])
def test_sizes_that_follow_from_pools_are_those_of_onnx_runtime(tmp_path, operator):
    """Of two pools in a row, the second's own size follows from the first's; both have such a window in some axis."""
    net = Net(18)
    pool = {"kernel_shape": [2, 1], "strides": [2, 2], "pads": [1, 0, 1, 0], "ceil_mode": 1}
    counted = {"count_include_pad": 1} if operator == "AveragePool" else {}
    first = net.op(operator, net.input(1, 2, 15, 14), **pool, **counted)
    second = net.op(operator, net.conv(first, 2, 3, (1, 1)), **pool)
    net.output(first, second, net.op("Shape", first), net.op("Shape", second))
    shapes = [spec.shape for spec in agrees(net, tmp_path).model.outputs[:2]]
    assert shapes == [(1, 2, 8, 7), (1, 3, 5, 4)]


def test_other_pools_stay_as_they_are(tmp_path):
    net = Net(18)
    x = net.input(1, 2, 15, 14)
    net.output(net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1))
    net.output(net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER", ceil_mode=1))
    graph = import_onnx(net.save(tmp_path / "net.onnx")).graph.graph
    assert [node.attributes["ceil_mode"].value for node in graph] == [1, 1]
