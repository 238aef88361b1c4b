"""Tasks: each different kernel with a choice once, with what the model does with it."""

import numpy as np
from compiled import Net, lowered

from nncc.kernels.templates import load_templates
from nncc.tuning.tasks import kernel_hash, kernel_tasks

TEMPLATES = load_templates()


def network(seed=0, names=("a", "b")):
    """Two equal convolutions and one of another size, ReLUs behind them."""
    net = Net(seed=seed)
    x = net.input(1, 32, 14, 14, name=names[0])
    for _ in range(2):
        x = net.op("Relu", net.conv(x, 32, 32, (1, 1)))
    net.output(net.op("Relu", net.conv(x, 32, 64, (1, 1))))
    return net


def test_equal_kernels_are_one_task_with_its_calls(tmp_path):
    tasks = kernel_tasks(lowered(network(), tmp_path), TEMPLATES)
    assert [task.calls for task in tasks] == [2, 1]
    assert tasks[0].constants == {1, 2}
    assert tasks[0].text.startswith("conv2d add relu 1x2x1x196x16 ")
    assert tasks[0].options["tile"][0] == [14, 2]
    assert tasks[0].operations.total >= 2 * 32 * 32 * 196
    assert tasks[0].graph_task == ""


def test_a_tasks_hash_is_its_structure_without_names_and_weights(tmp_path):
    ours = kernel_tasks(lowered(network(), tmp_path), TEMPLATES)
    theirs = kernel_tasks(lowered(network(seed=7, names=("image", "other")), tmp_path), TEMPLATES)
    assert [task.hash for task in ours] == [task.hash for task in theirs]
    assert ours[0].hash != ours[1].hash


def test_a_kernels_hash_does_not_change_between_processes(tmp_path):
    # A change of this number means that lowering has changed, and that all records of such kernels are lost.
    import sys
    from subprocess import run

    program = (
        "from nncc.compat import te, topi; from nncc.tuning.tasks import kernel_hash\n"
        "x = te.placeholder((4, 8), name='x'); print(kernel_hash(te.create_prim_func([x, topi.exp(x)])))"
    )
    found = {run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(found) == 1
    assert len(found.pop().strip()) == 16


def test_winograd_is_known_as_one_way_of_its_convolution(tmp_path):
    net = Net()
    x = net.input(1, 64, 28, 28)
    net.output(net.conv(x, 64, 64, (3, 3), pads=[1, 1, 1, 1]))
    kernels = lowered(net, tmp_path)
    (task,) = [task for task in kernel_tasks(kernels, TEMPLATES) if "conv2d" in task.text or "winograd" in task.text]
    (decision,) = [d for d in kernels.decisions if d.kind == "algorithm"]
    assert task.graph_task == decision.task
    assert decision.text == "1x64x28x28*64x64x3x3 padding=1,1,1,1, blocks of 16"
    assert decision.source == "default"


def test_names_do_not_matter_to_a_hash():
    from nncc.compat import te, topi

    def function(name):
        x = te.placeholder((4, 8), name=name)
        return te.create_prim_func([x, topi.exp(x)])

    assert kernel_hash(function("x")) == kernel_hash(function("image").with_attr("global_symbol", "k"))
    y = te.placeholder((4, 9), name="x")
    assert kernel_hash(function("x")) != kernel_hash(te.create_prim_func([y, topi.exp(y)]))
    assert np.unique([kernel_hash(function(n)) for n in "abc"]).size == 1
