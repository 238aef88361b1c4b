"""Tuning records: a kernel takes its loops from the best record of its target."""

import pytest

from nncc.compat import IRModule, Schedule, te, topi, tvm
from nncc.errors import RecordError
from nncc.target import resolve
from nncc.tuning.tvm_records import load_records


def function():
    x = te.placeholder((64, 32), name="x")
    return te.create_prim_func([x, topi.exp(x)])


def write_record(folder, target, lanes, seconds):
    """Store one schedule of `function`: its inner loop split by `lanes`."""
    from tvm.s_tir.meta_schedule.arg_info import ArgInfo
    from tvm.s_tir.meta_schedule.database import JSONDatabase, TuningRecord

    folder.mkdir(exist_ok=True)
    database = JSONDatabase(
        path_workload=str(folder / "database_workload.json"),
        path_tuning_record=str(folder / "database_tuning_record.json"),
    )
    module = IRModule({"main": function().with_attr("global_symbol", "main")})
    sch = Schedule(module)
    sch.vectorize(sch.split(sch.get_loops(sch.get_sblock("compute"))[-1], [None, lanes])[1])
    workload = database.commit_workload(module)
    database.commit_tuning_record(
        TuningRecord(sch.trace, workload, [seconds], target, ArgInfo.from_prim_func(function()))
    )


def test_the_fastest_record_of_the_target_is_taken(tmp_path):
    target = resolve("x86-64-v2").tvm_target()
    write_record(tmp_path / "a", target, 4, 0.002)
    write_record(tmp_path / "b", target, 8, 0.001)
    records = load_records([tmp_path / "a", tmp_path / "b"], target)
    assert records.count == 2
    assert "T.vectorized(8)" in records.schedule(function(), target).script()


def test_a_record_of_another_target_is_left_out(tmp_path):
    write_record(tmp_path, resolve("x86-64-v3").tvm_target(), 8, 0.001)
    target = resolve("x86-64-v2").tvm_target()
    records = load_records([tmp_path], target)
    assert (records.count, records.others) == (0, 1)
    assert records.schedule(function(), target) is None


def test_a_kernel_without_a_record_has_none(tmp_path):
    target = resolve("x86-64-v2").tvm_target()
    write_record(tmp_path, target, 8, 0.001)
    x = te.placeholder((7, 7), name="x")
    assert load_records([tmp_path], target).schedule(te.create_prim_func([x, topi.tanh(x)]), target) is None


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(RecordError) as error:
        load_records([tmp_path], tvm.target.Target({"kind": "llvm"}))
    assert str(error.value) == (
        f"`{tmp_path}` holds no tuning records: database_workload.json and database_tuning_record.json missing"
    )
    assert error.value.hint == "give the folder that tuning wrote"


def test_damaged_records_are_refused(tmp_path):
    target = resolve("x86-64-v2").tvm_target()
    write_record(tmp_path, target, 8, 0.001)
    (tmp_path / "database_tuning_record.json").write_text('[0, {"nonsense": 1\n')
    with pytest.raises(RecordError, match=r"the tuning records in `.*` cannot be read: "):
        load_records([tmp_path], target)
