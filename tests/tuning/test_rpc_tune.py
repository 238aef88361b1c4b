"""A model is tuned on devices behind TVM's RPC: it is built here and measured there."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import pytest
from compiled import Net
from farm import Farm

from nncc.config import Config, Tuning
from nncc.errors import RunError
from nncc.tuning.outcome import Watcher
from nncc.tuning.records import read_folder
from nncc.tuning.tune import tune

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="forks")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    net = Net()
    x = net.input(1, 24, 64, name="x")
    net.output(net.op("Relu", net.op("MatMul", x, net.weight(64, 96))))
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    net.save(path)
    return path


@pytest.fixture
def farm(tmp_path) -> Iterator[Farm]:
    pytest.importorskip("tornado", reason="TVM's tracker needs tornado")
    with Farm(tmp_path) as farm:
        yield farm


def tuning(farm, tmp_path, **options):
    return Tuning(into=tmp_path / "r", runner=f"rpc://127.0.0.1:{farm.port}/board", graph=False, **options)


def test_a_model_is_tuned_behind_rpc(farm, model, tmp_path):
    farm.server("board")
    found = tune(model, Config(threads=1), tuning(farm, tmp_path, trials=6), Watcher())
    assert found.state.trials == 6
    assert found.state.failed == 0
    records = [r for r in read_folder(tmp_path / "r")[0] if not r.error]
    assert len(records) >= 6
    assert all(record.seconds[0] > 0 for record in records)


def test_a_device_that_is_gone_in_mid_run_is_one_error_and_keeps_what_was_found(farm, model, tmp_path):
    server = farm.server("board")

    class Pull(Watcher):
        def state(self, state):
            if state.trials and server.poll() is None:
                farm.kill(server)

    with pytest.raises(RunError, match="board"):
        tune(model, Config(threads=1), tuning(farm, tmp_path, trials=64), Pull())
    assert len(read_folder(tmp_path / "r")[0]) > 0


def test_a_key_that_no_device_has_is_an_error_before_any_work(farm, model, tmp_path):
    farm.server("other")
    with pytest.raises(RunError, match="other"):
        tune(model, Config(threads=1), tuning(farm, tmp_path, trials=1), Watcher())
