"""Import: every wrong file gets one clear sentence and a way out; a right one gets static shapes."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from nncc.errors import ModelError
from nncc.frontend.onnx import import_onnx
from nncc.frontend.proto import save, to_proto
from nncc.frontend.relax_import import import_relax
from nncc.frontend.shapes import suggest
from nncc.frontend.unsupported import unsupported
from nncc.ir import Model
from nncc.verify import reference, sample_inputs

RELU = "g (float[2,3] x) => (float[2,3] y) { y = Relu (x) }"


def proto_of(text: str, opset: int = 17, **constants: np.ndarray) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}, "custom": 1]> {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items())
    return proto


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes | onnx.ModelProto, name: str = "model.onnx", **constants: np.ndarray) -> Path:
        path = tmp_path / name
        if isinstance(content, str):
            content = proto_of(content, **constants)
        path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
        return path

    return write


def refused(path: Path, match: str, hint: str = "", **options) -> ModelError:
    with pytest.raises(ModelError, match=match) as caught:
        import_onnx(path, **options)
    assert hint in (caught.value.hint or ""), caught.value.hint
    return caught.value


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"x")
    return buffer.getvalue()


OTHER_FILES = {
    "empty": (b"", "is empty", "interrupted"),
    "text": (b"layers:\n  - conv\n", "a text file", "parse_model"),
    "web page": (b"<!DOCTYPE html><html></html>", "an HTML or XML page", "download"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer", "git lfs pull"),
    "torch": (zipped("archive/data.pkl"), "PyTorch", "torch.onnx.export"),
    "keras": (zipped("model.weights.h5"), "Keras 3", "model.export"),
    "zip": (zipped("inside/net.onnx"), "a zip archive that holds `inside/net.onnx`", "unzip"),
    "pickle": (pickle.dumps({"weight": [1.0]}, 2), "pickle", "torch.onnx.export"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + b"\x00" * 20, "TensorFlow Lite", "tf2onnx"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"\x00" * 20, "HDF5", "tf2onnx"),
    "gzip": (b"\x1f\x8b\x08\x00" + b"\x00" * 20, "gzip", "gunzip"),
    "noise": (bytes(range(256)) * 8, "not a protobuf", ""),
    "no graph": (onnx.ModelProto(ir_version=8, producer_name="\x00").SerializeToString(), "without an ONNX graph", ""),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_other_files_are_named_for_what_they_are(write, kind):
    content, match, hint = OTHER_FILES[kind]
    refused(write(content), match, hint)


def test_paths_that_are_no_files(tmp_path, write):
    refused(tmp_path / "none.onnx", "does not exist")
    refused(tmp_path, "is a directory")
    write(RELU)
    refused(tmp_path, "is a directory", "model.onnx`")


def test_a_file_that_may_not_be_read(write, monkeypatch):
    def denied(self):
        raise PermissionError(13, "Permission denied")

    path = write(RELU)
    monkeypatch.setattr(Path, "read_bytes", denied)
    refused(path, "cannot read .*: Permission denied", "permissions")


def test_a_truncated_file_says_how_much_was_read(write):
    whole = proto_of("g (float[2,3] x) => (float[2,3] y) { y = Add (x, c) }", c=np.ones((2, 3), np.float32))
    data = whole.SerializeToString()
    refused(write(data[:-40]), rf"truncated: {len(data) - 40} bytes were read, at least [0-9]+ more", "again")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_bytes_are_refused_or_read_but_never_crash(tmp_path_factory, data):
    content = bytearray(
        proto_of("g (float[2,N] x) => (float[2,N] y) { y = Add (x, c) }", c=np.ones(1, np.float32)).SerializeToString()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "model.onnx"
    path.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    with contextlib.suppress(ModelError):
        import_onnx(path, shape={"x": (2, 3)})


def test_versions_that_are_too_new(write):
    proto = proto_of(RELU)
    proto.opset_import[0].version = 999
    refused(write(proto), "uses opset 999; the installed onnx", "opset_version=")
    proto = proto_of(RELU)
    proto.ir_version = 999
    refused(write(proto), "IR version 999", "newer onnx")


def test_the_checker_is_quoted(write):
    refused(write("g (float[2] x) => (float[2] y) { y = Relu (z) }"), "not valid ONNX: .*'z'")
    refused(write("g (float[2] x) => (float[2] y) { y = Nonsense (x) }"), "not valid ONNX: .*Nonsense")


def external(location: str, offset: int | None = None, length: int | None = None) -> onnx.ModelProto:
    proto = proto_of("g (float[4] x) => (float[4] y) { y = Add (x, c) }", c=np.ones(4, np.float32))
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return proto


def test_weights_beside_the_model_are_read(write, tmp_path):
    (tmp_path / "w.bin").write_bytes(b"\0" * 8 + np.arange(4, dtype=np.float32).tobytes())
    model = import_onnx(write(external("w.bin", 8, 16)))
    (tmp_path / "w.bin").unlink()
    out = reference(model, {"x": np.zeros(4, np.float32)})["y"]
    assert out.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "a/../../secret", "..\\secret", ""])
def test_weights_outside_the_folder_are_refused(write, location):
    refused(write(external(location)), "outside the model's folder|not in which")


@pytest.mark.parametrize(
    ("offset", "length", "match"),
    [
        (8, 16, "at bytes 8 to 24, but that file has 16"),
        (0, 8, "8 bytes, but its shape and type want 16"),
        (-1, 16, "has 16"),
        ("x", 16, "not a number"),
    ],
)
def test_weights_beyond_their_file_are_refused(write, tmp_path, offset, length, match):
    (tmp_path / "w.bin").write_bytes(b"\0" * 16)
    refused(write(external("w.bin", offset, length)), match)


def test_missing_and_linked_weights_are_refused(write, tmp_path):
    path = write(external("w.bin"))
    refused(path, "cannot be opened: No such file", "one folder")
    outside = tmp_path.parent / f"{tmp_path.name}-outside.bin"
    outside.write_bytes(b"\0" * 16)
    (tmp_path / "w.bin").symlink_to(outside)
    refused(path, "a link that leaves the model's folder")
    (tmp_path / "w.bin").unlink()
    os.link(outside, tmp_path / "w.bin")
    refused(path, "a hard link")
    (tmp_path / "w.bin").unlink()
    (tmp_path / "w.bin").mkdir()
    refused(path, "not a regular file")


@pytest.mark.parametrize(
    ("dims", "match"), [([2**40], "more than nncc takes"), ([1000], "wants 4,000 bytes"), ([-1], "negative dimension")]
)
def test_tensors_that_claim_more_than_they_carry_are_refused(write, dims, match):
    proto = proto_of(RELU, c=np.ones(4, np.float32))
    proto.graph.initializer[0].dims[:] = dims
    refused(write(proto), match)


def test_results_of_absurd_size_are_refused(write):
    body = "y = ConstantOfShape (big) z = ReduceMax <keepdims: int = 0> (y) w = Add (x, z)"
    path = write(f"g (float[1] x) => (float[1] w) {{ {body} }}", big=np.array([2**21, 2**21], np.int64))
    refused(path, "tensor `y` would have the shape 2097152x2097152")


def test_results_of_less_than_nothing_are_refused(write):
    body = "y = Pad (x, p) s = ReduceSum <keepdims: int = 0> (y) w = Add (x, s)"
    path = write(f"g (float[2,3] x) => (float[2,3] w) {{ {body} }}", p=np.array([-(2**40), 0, 0, 0], np.int64))
    with pytest.raises(ModelError) as found:
        import_relax(import_onnx(path))
    assert found.value.message == "`nn.pad` would give a tensor of the shape -1099511627774x3"
    assert found.value.hint == "`nncc show MODEL.onnx --stage simplify` shows the graph as it is compiled"


def test_tensors_of_more_axes_than_arrays_have_are_refused(write):
    sizes = ",".join("1" * 65)
    refused(write(f"g (float[{sizes}] x) => (float[{sizes}] y) {{ y = Neg (x) }}"),
            "input `x` has 65 axes; nncc takes 64")  # fmt: skip
    path = write("g (float[1] x) => (float[1] w) { y = Reshape (x, s) w = Reshape (y, t) }",
                 s=np.ones(65, np.int64), t=np.ones(1, np.int64))  # fmt: skip
    refused(path, "tensor `y` would have 65 axes; nncc takes 64")


def test_contents_of_long_vectors_are_no_sizes(write):
    """onnx makes a dimension of each element of a vector that is cast: of 2^37, for ever."""
    body = "y = ConstantOfShape (n) c = Cast <to: int = 1> (y) s = ReduceSum <keepdims: int = 0> (c) w = Add (x, s)"
    model = import_onnx(write(f"g (float[1] x) => (float[1] w) {{ {body} }}", n=np.array([2**37], np.int64)))
    assert [spec.shape for spec in model.outputs] == [(1,)]


DYNAMIC = "g (float[N,3,H,W] images) => (float[N,3,H,W] y) { y = Relu (images) }"


def test_all_dynamic_dimensions_are_listed_at_once(write):
    error = refused(write(DYNAMIC), "`images` has dynamic dimensions: `N`x3x`H`x`W`", "`--shape images=1x3x224x224`")
    assert "batch" not in error.hint
    refused(
        write("g (float[N,3] a, float[N,S] b) => (float[N,3] y) { y = Relu (a) }"),
        "`a` has a dynamic leading .* `N`x3; `b` has dynamic dimensions: `N`x`S`",
        "`--shape a=1x3 --shape b=1x128`",
    )
    refused(write("g (float[N,3] a) => (float[N,3] y) { y = Relu (a) }"), "leading", "for a batch of one")


@pytest.mark.parametrize(
    ("shape", "match", "hint"),
    [
        ({"image": (1, 3, 8, 8)}, "names no input", "did you mean `images`?"),
        ({"zzz": (1, 3, 8, 8)}, "names no input", "the inputs are: `images`"),
        ({"images": (1, 3, 8)}, "has 3 dimensions; the input has 4", "--shape images=1x3x224x224"),
        ({"images": (1, 4, 8, 8)}, "contradicts the model, where it is `N`x3x`H`x`W`", "export"),
        ({"images": (0, 3, 8, 8)}, "not positive", "1 or more"),
    ],
)
def test_wrong_shapes_are_explained(write, shape, match, hint):
    refused(write(DYNAMIC), match, hint, shape=shape)


def test_a_symbol_that_one_shape_fixes_is_fixed_everywhere(write):
    path = write("g (float[N,3] a, float[N,3] b) => (float[N,3] y) { y = Add (a, b) }")
    model = import_onnx(path, shape={"a": (5, 3)})
    assert [spec.shape for spec in (*model.inputs, *model.outputs)] == [(5, 3)] * 3
    refused(path, "`N` two sizes: 5 in `a`, 6 in `b`", shape={"a": (5, 3), "b": (6, 3)})


@given(st.lists(st.one_of(st.integers(1, 999), st.sampled_from(["N", "H", "?"])), max_size=5))
def test_a_suggestion_keeps_what_is_known_and_has_no_unknowns(words):
    sizes = [int(size) for size in suggest(words).split("x") if size]
    assert len(sizes) == len(words)
    assert all(not isinstance(word, int) or word == size for word, size in zip(words, sizes, strict=True))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=4, max_size=4))
def test_any_shape_that_fits_is_what_the_model_gets(tmp_path_factory, sizes):
    path = tmp_path_factory.mktemp("shape") / "m.onnx"
    body = "s = Shape (x) p = ReduceProd (s) y = Reshape (x, p)"
    path.write_bytes(proto_of(f"g (float[A,B,C,D] x) => (float[E] y) {{ {body} }}").SerializeToString())
    model = import_onnx(path, shape={"x": sizes})
    assert model.inputs[0].shape == tuple(sizes)
    assert model.outputs[0].shape == (int(np.prod(sizes)),)


def test_shapes_that_depend_on_data_are_refused_by_name(write):
    zero, one = "zero = Constant <value_int = 0> ()", "one = Constant <value_int = 1> ()"
    path = write(f"g (int64 n) => (int64[N] y) {{ {zero} {one} y = Range (zero, n, one) }}")
    refused(path, "the shape of output `y` depends on")


def test_operators_that_nobody_knows_are_listed(write):
    path = write("g (float[4] x) => (float[4] y) { a = custom.Magic (x) b = custom.Other (a) y = Relu (b) }")
    error = refused(path, "`model` uses 2 operators that nncc cannot compile")
    assert "custom Magic (opset 1): 1 x, `a`" in error.message and "Relu" not in error.message


def test_names_dtypes_and_unused_inputs_are_kept(write):
    path = write("g (float16[2] x, int64[3] unused) => (bool[2] y) { c = Cast <to = 1> (x) y = IsNaN (c) }", "net.onnx")
    model = import_onnx(path)
    assert model.name == "net" and import_onnx(path, name="other").name == "other"
    assert [str(s) for s in model.inputs] == ["x: float16[2]", "unused: int64[3]"]
    assert [str(s) for s in model.outputs] == ["y: bool[2]"]


def test_an_initializer_that_is_also_an_input_is_no_input(write):
    model = import_onnx(
        write("g (float[2] x, float[2] c) => (float[2] y) { y = Add (x, c) }", c=np.ones(2, np.float32))
    )
    assert [spec.name for spec in model.inputs] == ["x"]


def test_inputs_without_a_shape_and_outputs_without_one(write):
    proto = proto_of(RELU)
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    path = write(proto)
    refused(path, "`x` has no shape at all", "--shape x=")
    assert import_onnx(path, shape={"x": (4, 5)}).outputs[0].shape == (4, 5)


def test_inputs_that_are_no_tensors_are_refused_by_name(write):
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    proto = proto_of("g (float[2] x) => (float[2] y) { y = SequenceAt (x, i) }", i=np.array(0, np.int64))
    proto.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(tensor))
    refused(write(proto), "input `x` is a list of tensors")
    proto = proto_of("g (string[2] x) => (string[2] y) { y = Identity (x) }")
    refused(write(proto), "input `x` holds strings")


def function(body: str) -> str:
    return (
        '<ir_version: 8, opset_import: ["": 17, "local": 1]> g (float[2] x) => (float[2] y) { y = local.F (x) }\n'
        f'<domain: "local", opset_import: ["": 17, "local": 1]> F (a) => (b) {{ {body} }}'
    )


def test_local_functions_are_inlined(write):
    model = import_onnx(write(onnx.parser.parse_model(function("c = Relu (a) b = Neg (c)"))))
    assert [node.op_type for node in model.graph.graph] == ["Relu", "Neg"]
    assert not model.graph.functions


def test_functions_without_end_are_refused(write):
    refused(write(onnx.parser.parse_model(function("b = local.F (a)"))), "calls itself|not valid ONNX")
    text = function("b = local.G0 (a)")
    for at in range(20):
        calls = "".join(f"t{i + 1} = local.G{at + 1} (t{i}) " for i in range(4)).replace("t0", "a").replace("t4", "b")
        text += f'\n<domain: "local", opset_import: ["": 17, "local": 1]> G{at} (a) => (b) {{ {calls} }}'
    text += '\n<domain: "local", opset_import: ["": 17]> G20 (a) => (b) { b = Relu (a) }'
    refused(write(onnx.parser.parse_model(text)), "operators once its functions are inlined|not valid ONNX")


def test_what_is_saved_computes_the_same(write, tmp_path):
    model = import_onnx(write("g (float[2,3] x) => (float[2,3] y) { y = Add (x, c) }", c=np.ones((2, 3), np.float32)))
    save(model, tmp_path / "saved.onnx")
    again = import_onnx(tmp_path / "saved.onnx", name="model")
    assert again.inputs == model.inputs and again.outputs == model.outputs
    inputs = sample_inputs(model)
    assert np.array_equal(reference(model, inputs)["y"], reference(again, inputs)["y"])
    onnx.checker.check_model(to_proto(again), full_check=True)


def test_all_unsupported_operators_are_listed_at_once():
    body = "a = Relu (x) b = Relu (a) c = custom.Magic (b) y = Sigmoid (c)"
    proto = proto_of(f"g (float[2] x) => (float[2] y) {{ {body} }}")
    model = Model(onnx_ir.from_proto(proto), "net", (), ())
    assert unsupported(model, {"": {"Relu", "Sigmoid"}, "custom": {"Magic"}}) is None
    error = unsupported(model, {"": {"Sigmoid"}})
    assert error is not None
    assert "2 operators that nncc cannot compile" in error.message
    assert "ai.onnx Relu (opset 17): 2 x, `a`, `b`" in error.message
    assert "custom Magic (opset 1): 1 x, `c`" in error.message
