"""Records in the form of TVM's own tools: MetaSchedule's two files, written and read.

A trace that nncc wrote carries its decisions, and comes back as them. Another is kept as it is, and replayed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nncc.errors import NnccError, OutputError, RecordError
from nncc.target import Target, available, resolve
from nncc.tuning.record import Key, Record, Task, Versions, Workload, now
from nncc.tuning.record_set import RecordSet

__all__ = ["CONSTANTS", "WORKLOADS", "export", "import_", "load_function", "save_function", "target_of_key"]

WORKLOADS, RECORDS = "database_workload.json", "database_tuning_record.json"
CONSTANTS = "nncc.constants"
"""The attribute of a stored function that says which of its arguments are weights."""


def save_function(function: Any, constants: Sequence[int] = ()) -> str:
    """A TIR function as TVM's JSON."""
    from nncc.compat import IRModule, tvm

    plain = function.with_attr("global_symbol", "main").with_attr(CONSTANTS, [int(n) for n in constants])
    return str(tvm.ir.save_json(IRModule({"main": plain})))


def load_function(workload: Workload) -> tuple[Any, frozenset[int]]:
    """The function of a workload, and which of its arguments are weights.

    Raises RecordError where it cannot be read, or is another than its hash says.
    """
    from nncc.compat import tvm
    from nncc.tuning.tasks import kernel_hash

    try:
        function = tvm.ir.load_json(workload.text())["main"]
        constants = frozenset(int(n) for n in (function.attrs or {}).get(CONSTANTS, ()))
        if CONSTANTS in (function.attrs or {}):
            function = function.without_attr(CONSTANTS)
        found = kernel_hash(function)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise RecordError(f"the kernel of task {workload.hash} cannot be read: {_line(error)}") from error
    if found != workload.hash:
        raise RecordError(f"the kernel of task {workload.hash} is another one, {found}")
    return function, constants


def target_of_key(key: Key) -> Target:
    """The target that records of `key` are for. Raises RecordError where it is none of this nncc's."""
    try:
        target = resolve(key.target)
    except NnccError as error:
        raise RecordError(f"`{key.file_name}`: {error.message}", error.hint) from error
    target = replace(
        target,
        tvm=target.tvm | ({"num-cores": key.threads} if "num-cores" in target.tvm else {}),
        hardware=replace(target.hardware, cores=key.threads),
    )
    if Key.of(target).code != key.code:
        raise RecordError(f"the target `{key.target}` is another machine here than where the records were made")
    return target


def export(records: RecordSet, folder: Path, schedules: Sequence[Path] = ()) -> tuple[int, list[str]]:
    """Write the best record of every kernel and target as MetaSchedule's files; their number, and what was left out.

    Raises OutputError where `folder` cannot be written or has such files already.
    """
    from nncc.compat import IRModule, Schedule, metaschedule
    from nncc.kernels.choices import Choices
    from nncc.kernels.schedule_kernel import apply_template
    from nncc.kernels.templates import load_templates
    from nncc.tuning.search import ANSWERS, frozen

    files = [folder / WORKLOADS, folder / RECORDS]
    if any(file.exists() for file in files):
        raise OutputError(f"`{folder}` holds MetaSchedule's records already", "choose a new folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            file.touch()
    except OSError as error:
        raise OutputError(f"cannot write to `{folder}`: {error.strerror or error}", "choose another folder") from error
    ms, templates, failures = metaschedule(), load_templates(schedules), _tvm_errors()
    database = ms.database.JSONDatabase(path_workload=str(files[0]), path_tuning_record=str(files[1]))
    count, left_out = 0, []
    for key in records.keys:
        for task in records.tasks.values():
            best = records.best(task.hash, key)
            if best is None or task.kind != "kernel":
                continue
            try:
                if task.hash not in records.workloads:
                    raise RecordError("the kernel is not in the records")
                function, _ = load_function(records.workloads[task.hash])
                target = target_of_key(key)
                module = IRModule({"main": function.with_attr("global_symbol", "main")})
                with target.tvm_target():
                    if best.trace:
                        sch = Schedule(module)
                        _replay(best.trace, sch)
                    else:
                        choices = Choices(best.decisions)
                        sch, _ = apply_template(function, templates, target.hardware, choices)
                        if choices.refused:
                            raise RecordError(f"the template has no such {' or '.join(sorted(choices.refused))}")
                        sch.annotate(sch.get_sblock("root"), ANSWERS, frozen(choices.taken))
                    arguments = ms.arg_info.ArgInfo.from_prim_func(function)
            except failures as error:
                left_out.append(f"{task.text}: {_line(error)}")
                continue
            workload = database.commit_workload(module)
            database.commit_tuning_record(
                ms.database.TuningRecord(sch.trace, workload, [best.seconds[0]], target.tvm_target(), arguments)
            )
            count += 1
    return count, left_out


def import_(folder: Path, machine: str = "") -> tuple[RecordSet, list[str]]:
    """The records of MetaSchedule's two files, accepted as they are; and what was left out, and why.

    `machine` is the processor that they were measured on; without, they hold for targets that have a name, and not for
    `native`.

    Raises RecordError where there are none, or the files are another tool's.
    """
    from nncc.compat import metaschedule
    from nncc.tuning.tasks import kernel_hash, kernel_text

    _refuse_other_tools(folder)
    missing = [name for name in (WORKLOADS, RECORDS) if not (folder / name).is_file()]
    if missing:
        raise RecordError(
            f"`{folder}` holds no records of MetaSchedule: {' and '.join(missing)} missing",
            "give the `work_dir` that it tuned in",
        )
    try:
        stored = (
            metaschedule()
            .database.JSONDatabase(
                path_workload=str(folder / WORKLOADS), path_tuning_record=str(folder / RECORDS), allow_missing=False
            )
            .get_all_tuning_records()
        )
    except _tvm_errors() as error:
        raise RecordError(f"MetaSchedule's records in `{folder}` cannot be read: {_line(error)}") from error
    failures = _tvm_errors()
    records, workloads, left_out = [], {}, []
    keys = list(_keys())
    for number, each in enumerate(stored, 1):
        try:
            seconds = [float(value) for value in each.run_secs or ()]
            if not seconds or max(seconds) >= 1e9:
                raise RecordError("it failed when it was measured")
            function = each.workload.mod["main"]
            key = _key_of(each.target, keys)
            task = Task(kernel_hash(function), "kernel", kernel_text("imported", function)[:1000])
            records.append(_imported(each.trace, task, key, seconds, machine))
            workloads[task.hash] = Workload.of(task.hash, save_function(function.without_attr("global_symbol")))
        except failures as error:
            left_out.append(f"record {number}: {_line(error)}")
    return RecordSet(records, workloads.values()), left_out


def _imported(trace: Any, task: Task, key: Key, seconds: list[float], machine: str) -> Record:
    from nncc.tuning.search import answers_of
    from nncc.version import VERSION

    decisions = answers_of(trace)
    middle = sorted(seconds)[len(seconds) // 2]
    return Record(
        task=task,
        key=key,
        decisions=decisions,
        seconds=(middle, min(seconds), max(seconds)),
        reference=0.0,
        runs=len(seconds),
        accepted=True,
        error="",
        trace="" if decisions else json.dumps(_plain(trace.as_json()), separators=(",", ":")),
        machine=machine,
        versions=Versions(VERSION, "", ""),
        date=now(),
    )


def _replay(text: str, sch: Any) -> None:
    from nncc.compat import s_tir

    s_tir.schedule.Trace.apply_json_to_schedule(json.loads(text), sch)


def _keys() -> Iterator[Key]:
    for target in available():
        if target.name == target.base or target.name == "native":
            yield Key.of(target)


def _key_of(target: Any, keys: Sequence[Key]) -> Key:
    """The key of nncc's target with the same code as one of TVM's."""
    attributes = dict(target.attrs.items()) if target is not None else {}
    words = [str(target.kind.name) if target is not None else ""]
    words += [str(attributes.get(name, "")) for name in ("mtriple", "mcpu")]
    mattr = tuple(sorted(map(str, attributes.get("mattr", ()) or ())))
    threads = int(attributes.get("num-cores", 1))
    for key in keys:
        if [key.kind, key.mtriple, key.mcpu] == words and key.mattr == mattr:
            return replace(key, threads=threads)
    raise RecordError(f"no target of nncc is {' '.join(filter(None, words))} {','.join(mattr)}".rstrip())


def _refuse_other_tools(path: Path) -> None:
    """AutoTVM's and auto_scheduler's logs have one JSON object a line, in a file of any name."""
    for file in [path] if path.is_file() else sorted(path.glob("*"))[:50] if path.is_dir() else []:
        if not file.is_file() or file.name in (WORKLOADS, RECORDS):
            continue
        try:
            with open(file, "rb") as stream:
                found = json.loads(stream.readline(1 << 20))
        except (OSError, ValueError):
            continue
        tool = _tool(found)
        if tool:
            raise RecordError(
                f"`{file}` is a log of {tool}: its tasks are operators of Relay, which TVM no longer has",
                "tune the model again: `nncc tune`",
            )


def _tool(found: Any) -> str:
    if isinstance(found, dict) and {"input", "config", "result"} <= set(found):
        return "AutoTVM"
    if isinstance(found, dict) and {"i", "r", "v"} <= set(found):
        return "auto_scheduler"
    return ""


def _plain(value: Any) -> Any:
    """What TVM's containers hold, as Python's."""
    if isinstance(value, (str, bytes)) or value is None:
        return value
    if isinstance(value, (bool, int, float)):
        return value
    if hasattr(value, "items"):
        return {str(key): _plain(each) for key, each in value.items()}
    if hasattr(value, "__iter__"):
        return [_plain(each) for each in value]
    return value.value if hasattr(value, "value") else str(value)


def _tvm_errors() -> tuple[type[Exception], ...]:
    from nncc.compat import tvm

    return (
        NnccError,
        KeyError,
        tvm.s_tir.ScheduleError,
        tvm.error.InternalError,
        ValueError,
        TypeError,
        RuntimeError,
        AttributeError,
        IndexError,
    )


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
