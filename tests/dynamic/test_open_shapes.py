"""shapes.py: which dimensions are open, at what sizes they are looked at, and what is refused."""

from __future__ import annotations

import onnx_ir
import pytest
from tiny_model import tiny_model

from nncc.dynamic.shapes import bucket_points, checked_points, open_inputs, sample_points
from nncc.errors import ModelError, NnccError, UsageError
from nncc.ir import Dim

DIMS = (Dim("N", 1, 16), Dim("S", 16, 512))


def graph():
    return onnx_ir.from_proto(tiny_model())


def test_names_come_from_the_model_or_from_the_shape():
    own = open_inputs(graph(), {}, {"N": (1, 16)})
    given = open_inputs(graph(), {"image": ("B", 3, 8, 8)}, {"B": (1, 16)})
    assert own.dims == (Dim("N", 1, 16),)
    assert own.at({"N": 3}) == given.at({"B": 3}) == {"image": (3, 3, 8, 8), "offset": (5,)}


@pytest.mark.parametrize(
    ("shape", "ranges", "kind", "message", "hint"),
    [
        (
            {},
            {},
            ModelError,
            "dimension 0 of input `image`, `N`, has neither a size nor a range",
            "give it a range, `--range NAME=1..16`, or a size, with `--shape image=...`",
        ),
        (
            {},
            {"N": (1, 16), "M": (1, 4)},
            UsageError,
            "`--range M=...`: no input has an open dimension of this name",
            "open are: `N`",
        ),
        (
            {},
            {"N": (0, 16)},
            UsageError,
            "`--range N=0..16`: a range begins at 1 or more, and ends higher",
            None,
        ),
        (
            {"image": ("N", 4, 8, 8)},
            {"N": (1, 16)},
            ModelError,
            "`--shape image=Nx4x8x8` contradicts the model, where dimension 1 is 3",
            "only dimensions that are not numbers can be chosen",
        ),
        (
            {"image": ("N", 3, 8)},
            {"N": (1, 16)},
            ModelError,
            "`--shape image=Nx3x8` has 3 dimensions; the input has 4",
            None,
        ),
    ],
)
def test_what_cannot_be_is_refused(shape, ranges, kind, message, hint):
    with pytest.raises(NnccError) as caught:
        open_inputs(graph(), shape, ranges)
    assert (type(caught.value), caught.value.message, caught.value.hint) == (kind, message, hint)


@pytest.mark.parametrize("dims", [DIMS, DIMS[:1], DIMS[1:], (Dim("A", 1, 8), Dim("B", 1, 8))])
def test_samples_are_of_all_kinds_and_the_last_is_the_largest(dims):
    points = sample_points(dims)
    for dim in dims:
        sizes = [point[dim.name] for point in points]
        assert points[-1][dim.name] == max(sizes) >= dim.high
        assert min(sizes) > 2, "axes of 1 are dropped, and no size may be taken for a vector's"
        assert {size % 2 for size in sizes} == {0, 1} and any(size % 4 == 0 for size in sizes)
        assert dim.high < 64 or max(sizes) == dim.high, "a model may have tables that are no longer"
    if len(dims) == 2:
        assert all(len(set(point.values())) == 2 for point in points), "equal sizes would be taken for one"


def test_buckets_are_all_combinations():
    assert bucket_points(DIMS, {"N": (4, 1), "S": (128,)}) == [{"N": 1, "S": 128}, {"N": 4, "S": 128}]
    assert bucket_points(DIMS[:1], {"": (8,)}) == [{"N": 8}]


@pytest.mark.parametrize(
    ("buckets", "message"),
    [
        ({"": (1,)}, "`--buckets` does not say of which dimension: `N`, `S`"),
        ({"M": (1,)}, "`--buckets M:...`: there is no open dimension `M`"),
        ({"N": (17,)}, "the bucket 17 of `N` is outside of its range 1..16"),
        ({"N": range(1, 17), "S": range(16, 32)}, "there are 256 combinations of buckets; nncc takes 64"),
    ],
)
def test_buckets_that_cannot_be_are_refused(buckets, message):
    with pytest.raises(UsageError) as caught:
        bucket_points(DIMS, buckets)
    assert caught.value.message == message


def test_the_ends_are_checked_and_only_buckets_where_there_is_nothing_else():
    points = checked_points(DIMS, {}, True, 0)
    assert {"N": 1, "S": 16} in points and {"N": 16, "S": 512} in points and {"N": 1, "S": 512} in points
    assert checked_points(DIMS[:1], {"N": (2, 3)}, False, 0) == [{"N": 2}, {"N": 3}]
