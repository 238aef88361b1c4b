"""Schedule templates of one's own: found by name, and refused where something is missing."""

import pytest

from nncc.compat import te, tvm
from nncc.errors import UsageError
from nncc.kernels.schedule_kernel import schedule_kernel
from nncc.kernels.templates import load_templates
from nncc.resources import schedules_folder
from nncc.target import resolve

WHOLE = 'NAME = "mine"\n\ndef compute(): ...\n\ndef schedule(sch, block, hardware, choose): ...\n'
HINT = (
    "a template has `NAME`, `compute(...)` and `schedule(sch, block, hardware, choose)`, one that replaces another "
    "all that the other has; see CONTRIBUTING.md"
)


def test_a_file_of_one_s_own_is_on_an_equal_footing(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(WHOLE)
    templates = load_templates([path])
    assert templates["mine"].path == path
    assert {"conv2d", "conv2d_transpose", "depthwise_conv2d", "grouped_conv2d", "matmul", "winograd"} < set(templates)


def test_a_template_replaces_the_one_of_its_name(tmp_path):
    path = tmp_path / "conv2d.py"
    path.write_text((schedules_folder() / "conv2d.py").read_text())
    assert load_templates([path])["conv2d"].path == path


@pytest.mark.parametrize(
    ("text", "missing"),
    [('NAME = "mine"\n', "compute, schedule"), (WHOLE.replace("mine", "conv2d"), "along_rows, pack")],
)
def test_what_is_missing_is_named(tmp_path, text, missing):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        load_templates([path])
    assert error.value.message == f"schedule template `{path}` does not define {missing}"
    assert error.value.hint == HINT


def test_parameters_that_are_missing_are_named(tmp_path):
    """As those of a template written before convolutions of integers."""
    path = tmp_path / "conv2d.py"
    text = (schedules_folder() / "conv2d.py").read_text()
    path.write_text(text.replace(', task="", dot=None, zero=0):', ', task=""):'))
    with pytest.raises(UsageError) as error:
        load_templates([path])
    assert error.value.message == f"`compute` in schedule template `{path}` does not take dot, zero"
    assert error.value.hint == "it is called as that of nncc's own template `conv2d` is: give it the same parameters"
    path.write_text(text.replace(', task="", dot=None, zero=0):', ', task="", **options):').replace("data,", "x,"))
    assert load_templates([path])["conv2d"].path == path


def test_a_path_without_a_python_file(tmp_path):
    with pytest.raises(UsageError, match=r"schedule template `.*absent\.py` is not a Python file"):
        load_templates([tmp_path / "absent.py"])


def test_loops_that_fail_halfway_leave_the_kernel_as_it_was(monkeypatch):
    def fails(sch, block, hardware, choose):
        sch.fuse(*sch.get_loops(block))
        sch.get_sblock("there is none")

    monkeypatch.setattr("nncc.kernels.schedule_kernel.elementwise", fails)
    x = te.placeholder((4, 8), name="x")
    function = te.create_prim_func([x, te.compute((4, 8), lambda i, j: x[i, j] * 2.0, name="y")])
    before = function.script()
    scheduled, origin = schedule_kernel(function, {}, resolve("native").hardware)
    assert origin.startswith("loops (plain: ")
    assert function.script() == before
    tvm.ir.assert_structural_equal(scheduled.without_attr("global_symbol"), function.without_attr("global_symbol"))
