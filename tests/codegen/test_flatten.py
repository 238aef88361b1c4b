"""From a graph to calls: outputs of every kind, tensors of every type and of no elements, constants once."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees, compile_net

from nncc.errors import ModelError
from nncc.ir import symbol_prefix


def test_outputs_that_no_kernel_of_their_own_writes(tmp_path):
    """An input, a constant, one value twice, views of one buffer, and values that later kernels read again."""
    net = Net()
    x, other = net.input(3, 5), net.input(2, 3)
    net.input(7, name="unused")
    y = net.op("Relu", x)
    constant = net.constant(np.arange(6).reshape(2, 3), np.float32)
    net.output(
        net.op("Identity", x),
        net.op("Identity", constant),
        net.op("Identity", y),
        net.op("Identity", y),
        net.op("Reshape", y, net.ints(15)),
        net.op("Reshape", x, net.ints(5, 3)),
        net.op("Exp", y),
        *net.op("Split", net.op("Neg", x), net.ints(1, 2), axis=0, outputs=2),
        net.op("Add", other, constant),
    )
    compiled = agrees(net, tmp_path)
    copies = [call for call in compiled.program.calls if not call.kernel]
    assert len(copies) == 5, "two of the input, one of the constant, two of Relu, whose first output its kernel writes"
    assert [spec.name for spec in compiled.program.inputs] == [x, other, "unused"]


def test_graphs_without_kernels_or_inputs(tmp_path):
    net = Net()
    net.output(net.op("Identity", net.input(4, name="only")))
    compiled = agrees(net, tmp_path / "copy")
    assert [str(call) for call in compiled.program.calls] == ["copy 16 bytes(input[0], output[0])"]
    assert compiled.program.arena_bytes == 0
    net = Net()
    net.output(net.op("Add", net.constant([1, 2], np.float32), net.constant([3, 4], np.float32)))
    agrees(net, tmp_path / "constant")


def test_scalars_go_in_and_out(tmp_path):
    net = Net()
    x, y, flag = net.input(), net.input(), net.input(dtype=bool)
    net.output(net.op("Add", x, y), net.op("Identity", x), net.op("Where", flag, x, y), net.op("Not", flag))
    net.output(net.op("Mul", x, net.constant(2.5, np.float32)), net.op("Reshape", x, net.ints(1, 1)))
    net.output(net.op("ReduceSum", net.input(3, 4), keepdims=0), net.op("Cast", x, to=7))
    agrees(net, tmp_path)


def test_every_type_of_number(tmp_path):
    """Integers and booleans are exact; float16 is computed as ONNX Runtime does, to its own rounding."""
    net = Net()
    kinds = {
        np.float32: 1,
        np.uint8: 2,
        np.int8: 3,
        np.uint16: 4,
        np.int16: 5,
        np.int32: 6,
        np.int64: 7,
        np.float16: 10,
        np.float64: 11,
    }
    for dtype in (np.float64, np.float16, np.int64, np.int32, np.float32):
        x, y = net.input(3, 13, dtype=dtype), net.input(1, 13, dtype=dtype)
        total = net.op("Add", net.op("Mul", x, y), net.op("Sub", x, y))
        net.output(total, net.op("Less", x, y), net.op("Equal", x, y), net.op("Where", net.op("Greater", x, y), x, y))
        net.output(
            net.op("Transpose", total, perm=[1, 0]), net.op("Concat", x, y, axis=0), net.op("ReduceSum", x, net.ints(0))
        )
    for dtype in (np.float64, np.float16):
        net.output(net.op("Tanh", net.input(17, dtype=dtype)), net.op("Softmax", net.input(3, 17, dtype=dtype)))
    for dtype in (np.uint8, np.int8, np.int16, np.uint16):
        x = net.input(2, 19, dtype=dtype)
        net.output(net.op("Transpose", x, perm=[1, 0]), net.op("Slice", x, net.ints(3), net.ints(11), net.ints(1)))
    source = net.input(5, 7)
    for dtype, number in kinds.items():  # from float32 (in [-1, 1), so that every cast is defined) and back
        scaled = net.op("Abs", net.op("Mul", source, net.constant(100.0, np.float32)))
        cast = net.op("Cast", scaled, to=number)
        net.output(cast, net.op("Cast", cast, to=1), net.op("Cast", net.input(3, dtype=dtype), to=9))
    a, b = net.input(4, 9, dtype=bool), net.input(9, dtype=bool)
    net.output(net.op("And", a, b), net.op("Or", a, b), net.op("Xor", a, b), net.op("Not", a), net.op("Cast", a, to=1))
    agrees(net, tmp_path, tolerance=None)


def test_tensors_without_elements(tmp_path):
    net = Net()
    x = net.input(2, 3)
    empty = net.op("Slice", x, net.ints(1), net.ints(1), net.ints(0))
    net.output(
        empty, net.op("Concat", empty, x, axis=0), net.op("Relu", empty), net.op("MatMul", empty, net.weight(3, 5))
    )
    net.output(net.op("ReduceSum", empty, net.ints(0)))
    agrees(net, tmp_path)
    net.outputs = [net.op("MatMul", net.op("Transpose", empty), empty)]
    with pytest.raises(ModelError, match="the model reduces an axis without elements, which cannot be compiled"):
        compile_net(net, tmp_path)


def test_an_input_without_elements_counts_as_open(tmp_path):
    """Exporters write 0 for what they do not know."""
    net = Net()
    net.output(net.op("Relu", net.input(0, 3, name="x")))
    with pytest.raises(ModelError, match="`x` has a dynamic leading"):
        compile_net(net, tmp_path)


def test_equal_constants_are_stored_once(tmp_path):
    net = Net()
    data = net.random.standard_normal((24, 24)).astype(np.float32)
    x = net.input(3, 24)
    for _ in range(4):
        x = net.op("Tanh", net.op("MatMul", x, net.constant(data)))
    net.output(x)
    compiled = compile_net(net, tmp_path)
    assert compiled.program.weights.nbytes == data.nbytes
    assert len(set(compiled.program.calls)) == len(compiled.program.calls)
    assert len(compiled.program.kernels.functions) == 1, "equal layers share their kernel"


def test_every_reference_lies_inside_what_it_refers_to(tmp_path):
    net = Net()
    x = net.conv(net.input(1, 3, 17, 13), 3, 10, (3, 3), pads=[1] * 4)
    net.output(x, net.op("Softmax", net.op("MatMul", net.op("Flatten", x), net.weight(2210, 33))))
    program = compile_net(net, tmp_path).program
    for call in program.calls:
        for ref in call.args:
            limit = {
                "input": len(program.inputs),
                "output": len(program.outputs),
                "arena": program.arena_bytes,
                "weights": program.weights.nbytes,
            }[ref.space]
            assert 0 <= ref.at < limit
            assert ref.space in ("input", "output") or ref.at % 64 == 0


@pytest.mark.parametrize(
    ("name", "prefix"), [("net", "nncc_net_"), ("a-b.c d", "nncc_a_b_c_d_"), ("1", "nncc_1_"), ("émil", "nncc__mil_")]
)
def test_any_name_makes_symbols(name, prefix):
    assert symbol_prefix(name) == prefix


def concatenation(net, *pieces):
    return net.op("Concat", *pieces, axis=1)


def test_the_pieces_of_a_concatenation_are_written_where_they_belong(tmp_path):
    """One in another, as in DenseNet; what reads the pieces reads them there."""
    net = Net()
    x = net.op("Relu", net.conv(net.input(1, 16, 6, 6), 16, 32, (3, 3), pads=[1] * 4))
    first = net.op("Relu", net.conv(x, 32, 16, (1, 1)))
    both = concatenation(net, x, first)
    second = net.op("Relu", net.conv(both, 48, 16, (1, 1)))
    all_ = concatenation(net, both, second)
    net.output(net.conv(all_, 64, 16, (1, 1)), net.op("GlobalAveragePool", first))
    compiled = agrees(net, tmp_path)
    calls = [str(call) for call in compiled.program.calls]
    assert not [call for call in calls if "concat" in call or "copy" in call], calls


def test_a_piece_that_has_its_place_already_is_copied(tmp_path):
    """In two concatenations, twice in one, or an input."""
    net = Net()
    x, y = (net.op("Relu", net.conv(net.input(1, 16, 4, 4), 16, 16, (1, 1))) for _ in range(2))
    net.output(
        net.conv(concatenation(net, x, y), 32, 16, (1, 1)),
        net.conv(concatenation(net, y, x), 32, 16, (3, 3)),
        net.conv(concatenation(net, x, x), 32, 16, (3, 3)),
    )
    compiled = agrees(net, tmp_path)
    assert sum(not call.kernel for call in compiled.program.calls) == 4


def test_pieces_are_outputs_too(tmp_path):
    """Outputs have plain channels: with four of them these are the blocked ones."""
    net = Net()
    pieces = [net.op("Relu", net.conv(net.input(1, 4, 1, 1), 4, 16, (1, 1))) for _ in range(2)]
    both = concatenation(net, *pieces)
    net.output(both, *pieces, net.op("Exp", both))
    agrees(net, tmp_path)


def test_a_reshape_at_the_end_moves_nothing(tmp_path):
    net = Net()
    y = net.op("Exp", net.input(3, 8))
    net.output(net.op("Reshape", y, net.ints(24)))
    compiled = agrees(net, tmp_path)
    assert len(compiled.program.calls) == 1
