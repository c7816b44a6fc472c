import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest
import torch

from core.models.batch import GraphBatch
from core.training.gather_threads import GatherThreads
from core.training.packs import PackLimit
from core.training.pipeline import Pipeline
from tests.input_helpers import (
    PATIENCE_S,
    HookedData,
    Indices,
    gather_threads,
    read_all,
    same_batch,
    wait_until,
)
from tests.synthetic import make_store

STORE = make_store(40)
STEPS = [np.arange(10 * i, 10 * i + 10) for i in range(4)]


class Together:
    """Gathers that wait for each other: only so many threads at once get past."""

    def __init__(self, num_threads: int) -> None:
        self.barrier = threading.Barrier(num_threads, timeout=PATIENCE_S)

    def __call__(self, graphs: Indices) -> None:
        self.barrier.wait()


class Count:
    """Which graphs were gathered, and by which threads."""

    def __init__(self) -> None:
        self.graphs: list[list[int]] = []
        self.threads: set[threading.Thread] = set()

    def __call__(self, graphs: Indices) -> None:
        self.graphs.append(graphs.tolist())
        self.threads.add(threading.current_thread())


class ClockOfThreads:
    """Real time, and for each thread what it was made to pass: no pause of the machine comes near that."""

    def __init__(self) -> None:
        self.passed = threading.local()

    def pass_s(self, seconds: float) -> None:
        self.passed.s = seconds + getattr(self.passed, "s", 0.0)

    def perf_counter(self) -> float:
        return time.perf_counter() + float(getattr(self.passed, "s", 0.0))


def make_pipeline(
    hook: Callable[[Indices], object], num_workers: int = 2, prefetch_factor: int = 2, graphs: int = 5
) -> Pipeline:
    return Pipeline(HookedData(STORE, hook), PackLimit(graphs), num_workers, prefetch_factor)


def test_as_many_threads_gather_at_once_as_there_are_workers() -> None:
    with closing(make_pipeline(Together(4), num_workers=4, prefetch_factor=1)) as pipeline:
        assert len(list(read_all(pipeline, STEPS))) == 8


def test_workers_added_in_the_middle_of_an_epoch_take_part_in_it() -> None:
    count = Count()
    with closing(make_pipeline(count, num_workers=1)) as pipeline:
        packs = read_all(pipeline, STEPS)
        next(packs)
        wait_until(lambda: len(count.graphs) == 3)  # all that is held ready
        assert len(count.threads) == 1
        pipeline.data.hook = Together(5)  # type: ignore[attr-defined]
        pipeline.num_workers = 5
        assert len(list(packs)) == 7


def test_without_workers_the_training_thread_gathers_pack_by_pack() -> None:
    count = Count()
    pipeline = make_pipeline(count, num_workers=0)
    for i, _ in enumerate(read_all(pipeline, STEPS)):
        assert len(count.graphs) == i + 1
    assert count.threads == {threading.current_thread()}


def test_no_more_packs_are_held_ready_than_workers_times_prefetch() -> None:
    count = Count()
    with closing(make_pipeline(count, num_workers=2, prefetch_factor=1)) as pipeline:
        packs = read_all(pipeline, STEPS)
        next(packs)
        wait_until(lambda: len(count.graphs) == 3)
        pipeline.prefetch_factor = 2
        next(packs)
        wait_until(lambda: len(count.graphs) == 6)
        time.sleep(0.05)
        assert len(count.graphs) == 6


def test_workers_taken_away_end_and_what_they_held_ready_is_used() -> None:
    count = Count()
    with closing(make_pipeline(count, num_workers=3)) as pipeline:
        packs = read_all(pipeline, STEPS)
        next(packs)
        pipeline.num_workers = 0
        assert len(list(packs)) == 7
        wait_until(lambda: not gather_threads())
        assert sorted(count.graphs) == sorted([g.tolist() for s in STEPS for g in np.split(s, 2)])


def test_a_smaller_limit_lets_go_of_what_is_held_ready() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    class Watched(HookedData):
        def gather(self, graphs: Indices) -> GraphBatch:
            batch = super().gather(graphs)
            held.append(weakref.ref(batch.x))
            return batch

    with closing(Pipeline(Watched(STORE, lambda graphs: None), PackLimit(5), 2)) as pipeline:
        pipeline.begin(STEPS)
        pack = next(pipeline.packs(0))
        wait_until(lambda: len(held) == 5)
        pipeline.limit = PackLimit(3)
        wait_until(lambda: [ref() is None for ref in held] == [ref() is not pack.batch.x for ref in held])


@pytest.mark.parametrize("num_workers", [0, 1, 3])
@pytest.mark.parametrize(
    "error", [MemoryError("no room"), torch.OutOfMemoryError("no room"), ValueError("odd"), SystemExit(3)]
)
def test_what_gathering_raises_is_raised_at_that_very_pack_and_the_step_can_be_asked_for_again(
    num_workers: int, error: BaseException
) -> None:
    def fail(graphs: Indices) -> None:
        if 17 in graphs and len(graphs) > 2:
            raise error

    with closing(make_pipeline(fail, num_workers)) as pipeline:
        packs = read_all(pipeline, STEPS)
        assert [next(packs)[:3] for _ in range(3)] == [(0, 0, 5), (0, 5, 10), (1, 0, 5)]
        with pytest.raises(type(error)) as caught:
            next(packs)
        assert caught.value is error
        pipeline.limit = PackLimit(2)
        again = [graph for pack in pipeline.packs(1) for graph in STEPS[1][pack.start : pack.stop]]
        assert again == STEPS[1].tolist()


def test_an_error_in_a_thread_keeps_nothing_alive_once_it_is_handled() -> None:
    class Large:
        pass

    made: list[weakref.ref[Large]] = []

    def fail(graphs: Indices) -> None:
        large = Large()
        made.append(weakref.ref(large))
        raise MemoryError

    gc.disable()
    try:
        with closing(make_pipeline(fail, num_workers=1)) as pipeline:
            pipeline.begin(STEPS)
            with pytest.raises(MemoryError):
                list(pipeline.packs(0))
            pipeline.begin(STEPS)
            wait_until(lambda: all(ref() is None for ref in made))
    finally:
        gc.enable()


def test_threads_end_with_their_pipeline_and_epochs_start_no_more_of_them() -> None:
    pipeline = make_pipeline(lambda graphs: None, num_workers=3)
    for _ in range(5):
        list(read_all(pipeline, STEPS))
        wait_until(lambda: len(gather_threads()) == 3)
    pipeline.close()
    wait_until(lambda: not gather_threads())


def test_threads_end_with_a_pipeline_that_nobody_closed() -> None:
    pipeline = make_pipeline(lambda graphs: None, num_workers=3)
    list(read_all(pipeline, STEPS))
    del pipeline
    gc.collect()
    wait_until(lambda: not gather_threads())


def test_a_gather_that_hangs_does_not_keep_the_process_alive() -> None:
    script = """
import threading
from core.training import gather_threads
gather_threads._PATIENCE_S = 0.1
threads = gather_threads.GatherThreads()
threads.resize(2)
begun = threading.Event()
threads.submit(lambda: begun.set() or threading.Event().wait())
begun.wait()
"""
    subprocess.run([sys.executable, "-c", script], timeout=PATIENCE_S, check=True)


def test_another_epoch_lets_go_of_what_was_held_ready_for_the_one_before() -> None:
    count = Count()
    with closing(make_pipeline(count)) as pipeline:
        next(read_all(pipeline, STEPS))
        other = [np.arange(30, 40), np.arange(20, 30)]
        for step, start, stop, batch in read_all(pipeline, other):
            assert same_batch(batch, pipeline.data.batch(other[step][start:stop]))


@pytest.fixture
def _restore_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    torch.set_flush_denormal(False)


@pytest.mark.usefixtures("_restore_threads")
def test_a_worker_uses_one_thread_of_torch_and_leaves_that_of_others_alone() -> None:
    torch.set_num_threads(2)
    threads = GatherThreads[int]()
    threads.resize(2)
    assert {threads.submit(torch.get_num_threads).result() for _ in range(8)} == {1}
    threads.close()
    assert torch.get_num_threads() == 2
    found = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [2]


@pytest.mark.usefixtures("_restore_threads")
def test_workers_flush_denormal_numbers_as_the_training_thread_does() -> None:
    data = HookedData(make_store(10), lambda graphs: None)
    data._x = torch.from_numpy(make_store(10).x * np.float32(1e-40))
    data._node_scale = (data._node_scale[0] * 0, data._node_scale[1] * 0 + 1)
    torch.set_flush_denormal(False)
    plain = data.batch(np.arange(10))
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush denormal numbers")
    flushed = data.batch(np.arange(10))
    assert not same_batch(plain, flushed)
    with closing(Pipeline(data, PackLimit(10), 2)) as pipeline:
        (pack,) = read_all(pipeline, [np.arange(10)])
    assert same_batch(pack[3], flushed)


def test_fewer_threads_than_asked_for_are_put_up_with_where_memory_allows_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def refuse(thread: threading.Thread) -> None:
        if len(started) == 1:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with closing(make_pipeline(lambda graphs: None, num_workers=3)) as pipeline:
        assert len(list(read_all(pipeline, STEPS))) == 8
        with closing(GatherThreads[int]()) as others, pytest.raises(MemoryError):
            others.resize(1)


def test_times_tell_waiting_from_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ClockOfThreads()
    monkeypatch.setattr("core.training.pipeline.time", clock)
    with closing(make_pipeline(lambda graphs: clock.pass_s(1000.0), num_workers=4)) as pipeline:
        packs = read_all(pipeline, STEPS)
        next(packs)
        first = pipeline.take_times()
        assert first.num_packs == 1
        assert first.pack_bytes == pipeline.data.batch(STEPS[0][:5]).num_bytes > 5 * 5 * 35 * 4
        assert first.load_s >= 1000
        assert first.wait_s > 0
        wait_until(lambda: len(pipeline._ready) > 0 and all(f.done() for _, f in pipeline._ready))
        next(packs)
        second = pipeline.take_times()
        assert second.load_s >= 1000
        assert second.wait_s < second.load_s
        assert pipeline.take_times().num_packs == 0
