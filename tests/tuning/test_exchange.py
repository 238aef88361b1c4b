"""Records go to TVM's own tools and come back: as decisions where nncc made them, as traces where it did not."""

from __future__ import annotations

import json

import pytest
from compiled import Net, agrees, lowered
from made_records import made

import nncc
from nncc.compat import IRModule, Schedule, metaschedule
from nncc.errors import OutputError, RecordError
from nncc.kernels.templates import load_templates
from nncc.target import resolve
from nncc.tuning.exchange import RECORDS, WORKLOADS, export, import_, load_function, save_function, target_of_key
from nncc.tuning.record import Task, Workload
from nncc.tuning.records import Key, RecordSet, add_to_folder
from nncc.tuning.tasks import kernel_hash, kernel_tasks

TARGET = resolve("x86-64-v3,num-cores=1")


def network():
    net = Net()
    x = net.input(1, 32, 14, 14, name="x")
    net.output(net.op("Relu", net.conv(x, 32, 64, (1, 1))))
    return net


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return kernel_tasks(lowered(network(), tmp_path_factory.mktemp("net"), "x86-64-v3"), load_templates())[0]


def record(task, decisions, key=None):
    return made(task.hash, key or Key.of(TARGET), decisions=decisions, task=Task(task.hash, "kernel", task.text))


def other_tile(task):
    return {name: options[0] for name, options in task.options.items()} | {"tile": task.options["tile"][2]}


def records_of(task, decisions):
    stored = Workload.of(task.hash, save_function(task.function, sorted(task.constants)))
    return RecordSet([record(task, decisions)], [stored])


def test_a_stored_kernel_is_the_same_one_and_knows_its_weights(task):
    function, constants = load_function(Workload.of(task.hash, save_function(task.function, sorted(task.constants))))
    assert kernel_hash(function) == task.hash
    assert constants == task.constants


def test_a_kernel_that_is_another_than_its_hash_says_is_refused(task):
    with pytest.raises(RecordError, match=r"^the kernel of task 0123456789abcdef is another one, [0-9a-f]{16}$"):
        load_function(Workload.of("0123456789abcdef", save_function(task.function)))
    with pytest.raises(RecordError, match=r"^the kernel of task 01234567 cannot be read: "):
        load_function(Workload.of("01234567", '{"no": "module"}'))


def test_tvm_s_database_replays_what_was_exported_and_it_comes_back_as_decisions(task, tmp_path):
    decisions = other_tile(task)
    count, left_out = export(records_of(task, decisions), tmp_path / "ms")
    assert (count, left_out) == (1, [])
    database = metaschedule().database.JSONDatabase(
        path_workload=str(tmp_path / "ms" / WORKLOADS), path_tuning_record=str(tmp_path / "ms" / RECORDS)
    )
    (stored,) = database.get_all_tuning_records()
    sch = Schedule(stored.workload.mod)
    stored.trace.apply_to_schedule(sch, remove_postproc=False)
    assert "nncc.choices" in sch.mod.script()
    found, left_out = import_(tmp_path / "ms")
    assert left_out == []
    (back,) = found
    assert (back.task.hash, dict(back.decisions), back.accepted, back.trace) == (task.hash, decisions, True, "")
    assert back.key.code == Key.of(TARGET).code


def test_a_trace_of_another_tool_is_kept_and_replayed(task, tmp_path):
    ms = metaschedule()
    (tmp_path / "ms").mkdir()
    database = ms.database.JSONDatabase(
        path_workload=str(tmp_path / "ms" / WORKLOADS), path_tuning_record=str(tmp_path / "ms" / RECORDS)
    )
    module = IRModule({"main": task.function.with_attr("global_symbol", "main")})
    sch = Schedule(module)
    sch.unroll(sch.get_loops(sch.get_sblock("conv2d"))[-1])
    database.commit_tuning_record(
        ms.database.TuningRecord(
            sch.trace,
            database.commit_workload(module),
            [1e-4],
            TARGET.tvm_target(),
            ms.arg_info.ArgInfo.from_prim_func(task.function),
        )
    )
    found, left_out = import_(tmp_path / "ms")
    assert left_out == []
    (back,) = found
    assert back.trace and not back.decisions
    add_to_folder(found, tmp_path / "team")
    compiled = agrees(network(), tmp_path, "x86-64-v3,num-cores=1", records=[tmp_path / "team"])
    schedules = compiled.artifact.description["schedules"].values()
    assert f"trace (record in {tmp_path / 'team'}, imported)" in schedules


def test_a_trace_that_brings_code_of_its_own_is_not_replayed(task):
    from nncc.codegen.schedule import replay
    from nncc.kernels.choices import TRACE, Choices

    annotate = (
        '[[["GetSBlock",[],["conv2d","main"],["b0"]],["Annotate",["b0","\\"x\\""],["pragma_import_llvm"],[]]],[]]'
    )
    for trace in (annotate, "", "[", "[[], []]extra", '[["NoSuch",[],[],[]]]'):
        choices = Choices({TRACE: trace})
        assert replay(task.function, choices) is None
        assert choices.refused == {TRACE}


def test_what_tvm_s_tools_wrote_for_no_target_of_ours_or_failed_is_left_out_with_the_reason(task, tmp_path):
    export(records_of(task, other_tile(task)), tmp_path / "ms")
    path = tmp_path / "ms" / RECORDS
    number, (trace, seconds, target, arguments) = json.loads(path.read_text())
    target["mcpu"] = "bdver4"
    failed = [number, [trace, [1e10], target, arguments]]
    path.write_text(
        "\n".join(json.dumps(each) for each in ([number, [trace, seconds, target, arguments]], failed)) + "\n"
    )
    found, left_out = import_(tmp_path / "ms")
    assert not found
    assert left_out[0].startswith("record 1: no target of nncc is llvm x86_64-unknown-linux-gnu bdver4")
    assert left_out[1] == "record 2: it failed when it was measured"


def test_a_folder_without_the_files_a_damaged_one_and_a_full_one_are_errors(task, tmp_path):
    with pytest.raises(RecordError) as error:
        import_(tmp_path)
    assert str(error.value) == f"`{tmp_path}` holds no records of MetaSchedule: {WORKLOADS} and {RECORDS} missing"
    export(records_of(task, other_tile(task)), tmp_path / "ms")
    with pytest.raises(OutputError) as full:
        export(records_of(task, other_tile(task)), tmp_path / "ms")
    assert str(full.value) == f"`{tmp_path / 'ms'}` holds MetaSchedule's records already"
    (tmp_path / "ms" / RECORDS).write_text('[0, {"nonsense": 1\n')
    with pytest.raises(RecordError, match=r"^MetaSchedule's records in `.*` cannot be read: "):
        import_(tmp_path / "ms")


@pytest.mark.parametrize(
    ("line", "tool"),
    [
        ('{"input": ["llvm", "conv2d", []], "config": {}, "result": [], "version": 0.2}', "AutoTVM"),
        ('{"i": [["[]"], []], "r": [[0.1], 0, 1, 1], "v": "v0.6"}', "auto_scheduler"),
    ],
)
def test_logs_of_tvm_s_older_tuners_are_recognised_and_refused(tmp_path, line, tool):
    (tmp_path / "log.json").write_text(line + "\n")
    with pytest.raises(RecordError) as error:
        import_(tmp_path)
    assert str(error.value) == (
        f"`{tmp_path / 'log.json'}` is a log of {tool}: its tasks are operators of Relay, which TVM no longer has"
    )
    assert error.value.hint == "tune the model again: `nncc tune`"


def test_records_of_a_target_that_is_not_known_here_are_left_out_of_an_export(task, tmp_path):
    stored = Workload.of(task.hash, save_function(task.function))
    key = Key("our-board", "llvm", "aarch64-unknown-linux-gnu", "cortex-a72", (), 4, 128)
    count, left_out = export(RecordSet([record(task, other_tile(task), key=key)], [stored]), tmp_path / "ms")
    assert count == 0
    assert left_out == [f"{task.text}: `our-board-4t`: unknown target `our-board`"]
    with pytest.raises(RecordError):
        target_of_key(key)
    assert nncc.__version__
