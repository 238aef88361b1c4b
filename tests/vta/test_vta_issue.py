"""Dependences are those of elements; tokens tell no more than is not known; micro-operations are there when needed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.errors import InternalError
from nncc.vta.hazards import COMPUTE, LOAD, STORE, Work, dependences, works
from nncc.vta.issue import issue
from nncc.vta.machine import Machine
from nncc.vta.nests import Loop, nest
from nncc.vta.stream import Alu, Gemm, Load, Operation, Place, Store
from nncc.vta.uop_cache import cached

NV1 = Machine("nv1")


def load(sram: int, element: int, memory: str = "inp", count: int = 4) -> Load:
    return Load(memory, Place(0 if memory == "inp" else 1, element), sram, 1, count, count)


def gemm(dst: int, src: int, wgt: int, count: int = 4) -> Gemm:
    return Gemm(**nest([Loop(count, 1, 1)], (dst, src, wgt)))


def store(sram: int, element: int, count: int = 4) -> Store:
    return Store(Place(2, element), sram, 1, count, count)


def program(*operations: Operation) -> list[Work]:
    """Argument 0 and 2 of the arena are the same memory; argument 1 are constants."""
    return list(works(operations, 0, (0, 0, 0), NV1))


def test_an_operation_waits_for_who_wrote_what_it_reads_and_read_what_it_writes() -> None:
    work = program(
        load(0, 100),  # 0
        load(0, 0, "wgt", 1),  # 1
        gemm(0, 0, 0),  # 2 reads what both loaded
        store(0, 200),  # 3 what 2 computed
        load(4, 104),  # 4 elsewhere on the chip, nothing stored
        load(2, 202),  # 5 over what 2 reads, from where 3 stores
        gemm(4, 4, 0),  # 6 reads 5's last two and 4's: of one queue, the last is enough
        gemm(2, 0, 0),  # 7 over what 3 reads
        store(4, 100, 2),  # 8 what 6 and then 7 computed, to where 0 loaded from
    )
    assert [each.queue for each in work] == [LOAD, LOAD, COMPUTE, STORE, LOAD, LOAD, COMPUTE, COMPUTE, STORE]
    assert dependences(work, NV1) == [(), (), (0, 1), (2,), (), (2, 3), (1, 5), (1, 3, 5), (0, 7)]


def test_a_reset_leaves_the_results_alone_and_an_immediate_reads_nothing() -> None:
    reset = Gemm(**nest([Loop(4, 1, 0)], (0, 0, 0)), reset=True)
    clip = Alu(**nest([Loop(4, 1, 0)], (0, 0, 0)), operation="MAX", immediate=0)
    first, second, third = program(store(0, 0), reset, clip)
    assert not second.reads and not second.writes and not third.reads
    assert dependences([first, second, third], NV1) == [(), (), (0,)]


def test_tokens_pair_and_a_load_hears_of_a_store_through_the_compute_queue() -> None:
    work = program(load(0, 0), load(0, 0, "wgt", 1), gemm(0, 0, 0), store(0, 64), load(8, 64), gemm(8, 8, 0))
    order = issue(work, dependences(work, NV1), 4)
    relays = [each for each in order if each.work is None]
    assert [(sorted(each.pops), sorted(each.pushes)) for each in relays[:1]] == [([STORE], [LOAD])]
    by_work = {each.work: each for each in order if each.work is not None}
    assert by_work[4].pops == {COMPUTE} and by_work[3].pushes == {COMPUTE}
    # One token of the load queue tells of both loads; the last operation knows everything to be complete.
    assert sum(COMPUTE in by_work[index].pushes for index in (0, 1)) == 1
    assert order[-1].clock[LOAD] == 3 and order[-1].clock[STORE] == 1
    for source, target in ((LOAD, COMPUTE), (COMPUTE, LOAD), (COMPUTE, STORE), (STORE, COMPUTE)):
        pushes = sum(target in each.pushes for each in order if each.queue == source)
        assert pushes == sum(source in each.pops for each in order if each.queue == target)


def test_weights_are_loaded_while_data_is_not_yet_there() -> None:
    """The data of the second product is what the first one stores; its weights come before."""
    work = program(
        load(0, 0), load(0, 0, "wgt", 1), gemm(0, 0, 0), store(0, 64), load(8, 64), load(1, 1, "wgt", 1), gemm(8, 8, 1)
    )
    order = [each.work for each in issue(work, dependences(work, NV1), 4)]
    assert order.index(5) < order.index(3) < order.index(4)


def test_more_tokens_than_the_machine_counts_are_an_error() -> None:
    """256 loads, each waited for by a computation of its own, of which none waits for another."""
    work = program(*(load(4 * i, 4 * i) for i in range(256)), *(gemm(0, 4 * i, 0) for i in range(256)))
    with pytest.raises(InternalError) as caught:
        issue(work, dependences(work, NV1), 4)
    assert str(caught.value) == "accelerator: more than 255 tokens are under way from queue 0"
    most = [*work[:255], *work[256:511]]
    issue(most, dependences(most, NV1), 4)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 5)), min_size=1, max_size=40), st.integers(12, 64))
def test_micro_operations_are_on_the_chip_when_they_are_needed(shapes: list[tuple[int, int]], depth: int) -> None:
    lists = [np.arange(size, dtype=np.uint32) + 1000 * number for size, number in shapes]
    layers = [index // 7 for index in range(len(lists))]
    result = cached(lists, layers, depth)
    chip = np.full(depth, 1 << 31, np.uint32)
    loads = iter([*result.loads, None])
    coming = next(loads)
    for index, (content, place) in enumerate(zip(lists, result.places, strict=True)):
        while coming is not None and coming.before == index:
            chip[coming.target : coming.target + coming.size] = result.image[
                coming.source : coming.source + coming.size
            ]
            coming = next(loads)
        np.testing.assert_array_equal(chip[place : place + len(content)], content)


def test_lists_of_a_layer_are_loaded_at_once_and_only_once() -> None:
    lists = [np.full(4, number, np.uint32) for number in (1, 2, 3, 1, 2, 3)]
    result = cached(lists, [0, 0, 0, 1, 1, 1], 64)
    assert [(each.before, each.size) for each in result.loads] == [(0, 12)]
    assert len(result.image) == 12
