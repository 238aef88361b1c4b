"""Tuning records, all that others need of them: values, sets, folders, and places that are shared."""

from __future__ import annotations

from nncc.tuning.places import fetch_place, open_records, pull, push
from nncc.tuning.record import Key, Record, Task, Versions, Workload, from_line, now
from nncc.tuning.record_files import Journal, Problem, add_to_folder, keep_in_folder, read_folder
from nncc.tuning.record_set import RecordSet

__all__ = [
    "Journal",
    "Key",
    "Problem",
    "Record",
    "RecordSet",
    "Task",
    "Versions",
    "Workload",
    "add_to_folder",
    "fetch_place",
    "from_line",
    "keep_in_folder",
    "now",
    "open_records",
    "pull",
    "push",
    "read_folder",
]
