"""`nncc.quantize`: the files that it writes, the same bytes again, metrics, and what it refuses."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from quant_models import images, lopsided

import nncc
from nncc.errors import ModelError, OutputError, ToolError, UsageError
from nncc.quant.recipe import Recipe
from nncc.quant.recipe_file import read_recipe
from nncc.verify import reference


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A model and samples in an empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return lopsided(tmp_path / "l.onnx", excess=50.0), images(tmp_path / "c.npz")


def test_a_standard_qdq_file_and_its_recipe_lie_beside_the_model(made):
    model, data = made
    found = nncc.quantize(model, data, observer="minmax")
    assert (found.path.name, found.recipe_path.name) == ("l.int8.onnx", "l.quantize.toml")
    onnx.checker.check_model(str(found.path), full_check=True)
    proto = onnx.load(found.path)
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in proto.graph.node}
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert read_recipe(found.recipe_path) == found.outcome.recipe == Recipe(observer="minmax")
    with np.load(data) as arrays:
        batch = {"image": arrays["image"]}
    exact, rounded = (reference(path, batch)["scores"] for path in (model, found.path))
    noise = ((exact - rounded) ** 2).sum() / (exact**2).sum()
    # Held-out samples and all samples are alike; a factor of 2 is wide.
    assert noise < 2 * (1 - found.outcome.agreement["sqnr"])
    assert found.int8_bytes == found.path.stat().st_size


def test_the_recipe_that_was_written_gives_the_same_bytes_again(made, tmp_path):
    model, data = made
    first = nncc.quantize(model, data, tmp_path / "a.int8.onnx", max_drop="0.4%", metric="sqnr", seed=5)
    assert first.outcome.recipe.float_nodes and first.outcome.evaluations > 1
    again = nncc.quantize(model, data, tmp_path / "b.int8.onnx", recipe=first.recipe_path)
    assert again.path.read_bytes() == first.path.read_bytes()
    assert again.outcome.recipe == first.outcome.recipe
    text = first.recipe_path.read_text()
    assert "# by itself it leaves " in text and text.startswith(
        f"# How nncc {nncc.__version__} made a.int8.onnx of l.onnx"
    )
    # What held by the search's own word holds by ONNX Runtime's on the file, whose float score is 1.
    assert first.outcome.agreement["sqnr"] >= 0.996


def test_choices_go_before_the_recipe(made):
    model, data = made
    recipe = Recipe(observer="percentile", percentile=99.0, symmetric=True)
    found = nncc.quantize(model, data, recipe=recipe, symmetric=False, float_nodes=("second",))
    assert found.outcome.recipe == Recipe(observer="percentile", percentile=99.0, float_nodes=("second",))
    assert found.outcome.reasons == {"second": "the recipe says so"}


def test_samples_may_be_arrays_in_memory(made, tmp_path):
    model, data = made
    with np.load(data) as arrays:
        samples = [{"image": row[None]} for row in arrays["image"]]
    whole = nncc.quantize(model, data, tmp_path / "a.int8.onnx", observer="mse").path.read_bytes()
    assert nncc.quantize(model, samples, tmp_path / "b.int8.onnx", observer="mse").path.read_bytes() == whole
    with pytest.raises(UsageError) as caught:
        nncc.quantize(model, [])
    assert caught.value.message == "there are no calibration samples"


def test_open_dimensions_can_be_fixed(made):
    model, data = made
    found = nncc.quantize(model, data, shape={"image": (1, 3, 8, 8)}, observer="minmax")
    assert onnx.load(found.path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_a_function_is_asked_for_the_float_model_and_for_candidates(made):
    model, data = made
    seen = []

    def worth(path):
        nodes = {node.op_type for node in onnx.load(path).graph.node}
        seen.append(path)
        return 90.0 if "QuantizeLinear" in nodes else 91.0

    found = nncc.quantize(model, data, metric=worth, max_drop=1.5, observer="minmax")
    assert found.outcome.scores == (91.0, 90.0) and found.outcome.floor == pytest.approx(89.5)
    assert [path == model for path in seen] == [True, False]
    assert found.outcome.recipe.float_nodes == ()
    with pytest.raises(ModelError) as caught:
        nncc.quantize(model, data, metric=worth, max_drop="0.5%", observer="minmax")
    assert caught.value.message == "no layer may be int8: the best score is 90, at least 90.545 is asked for"
    assert nncc.quantize(model, data, metric=worth, observer="minmax").outcome.scores == (91.0, 90.0)


def test_a_metric_that_fails_stops_before_anything_is_written(made, tmp_path):
    model, data = made

    def worth(path):
        raise KeyError("labels")

    with pytest.raises(ToolError) as caught:
        nncc.quantize(model, data, metric=worth)
    assert caught.value.message == "the metric `worth` failed: KeyError: 'labels'"
    assert not (tmp_path / "l.int8.onnx").exists()


def test_layers_can_be_ranked_by_the_metric(made):
    model, data = made

    def worth(path):
        proto = onnx.load(path)
        second = next((node for node in proto.graph.node if node.name == "second"), None)
        return 0.0 if second is not None and not second.input[1].startswith("w") else 1.0

    found = nncc.quantize(model, data, metric=worth, max_drop=0.1, rank_by="metric", observer="minmax")
    assert found.outcome.recipe.float_nodes == ("second",)
    assert found.outcome.reasons["second"] == "by itself it costs 1 of the score"


@pytest.mark.parametrize(
    ("call", "kind", "message", "hint"),
    [
        ({"observr": "mse"}, UsageError, "a recipe has no `observr`", "did you mean `observer`?"),
        ({"rank_by": "size"}, UsageError, "layers cannot be ranked by `size`", "by `output` or by `metric`"),
        ({"output": "l.onnx"}, UsageError, "`-o l.onnx` is the float model itself", "choose another file"),
        ({"output": "."}, UsageError, "`-o .` is a folder", "give a file, for example `l.int8.onnx`"),
        ({"output": "no/l.onnx"}, OutputError, "cannot write `no/l.onnx`: there is no folder `no`", "make it first"),
        (
            {"float_nodes": ("secnd",)},
            UsageError,
            "the recipe names `secnd`, which is no node of the model",
            "did you mean `second`?",
        ),
    ],
)
def test_what_cannot_be_is_refused(made, call, kind, message, hint):
    _, data = made
    with pytest.raises(kind) as caught:
        nncc.quantize("l.onnx", data, **call)
    assert (caught.value.message, caught.value.hint) == (message, hint)
