"""Functions that tests have the training process run; run as a module, a parent to kill."""

import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from core.errors import ArtifactError, CaptureError, GraphStoreError, TrainingError, TrainingProcessError
from core.events.catalogue import ChainStarted, Emit
from core.events.heartbeat import beat
from core.events.stopping import heeding_stops, stop_asked
from core.resources.process import TrainingProcess
from settings.errors import SettingsError


class TwoArgumentsError(Exception):
    """An exception that pickle cannot rebuild."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__(f"{left} and {right}")


def count(num_facts: int, padding: int, emit: Emit) -> int:
    for number in range(num_facts):
        emit(ChainStarted(dataset=f"{number}{'x' * padding}"))
    return num_facts


def echo(value: Any, emit: Emit) -> Any:
    return value


def say(text: str, emit: Emit) -> None:
    print(text)
    print(text, file=sys.stderr)
    os.write(1, b"written by native code\n")


def say_and_touch(path: Path, emit: Emit) -> None:
    emit(ChainStarted(dataset="first"))
    path.touch()


def tell_and_interrupt(emit: Emit) -> None:
    emit(ChainStarted(dataset="told"))
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(3600)


def interrupt_twice(emit: Emit) -> None:
    del emit
    with heeding_stops():
        os.kill(os.getppid(), signal.SIGINT)
        while not stop_asked():
            time.sleep(0.01)
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(3600)


def hold(num_bytes: int, emit: Emit) -> int:
    return len(b"x" * num_bytes)


def loaded_modules(emit: Emit) -> list[str]:
    return sorted(sys.modules)


def interrupted_work(seconds: float, emit: Emit) -> str:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(seconds)
    return "done"


def wait(pid_file: Path | None, emit: Emit) -> None:
    emit(ChainStarted(dataset="waiting"))
    if pid_file:
        pid_file.write_text(str(os.getpid()), encoding="ascii")
    time.sleep(600)


def wait_without_kernel_help(pid_file: Path, emit: Emit) -> None:
    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)  # as on a system without PR_SET_PDEATHSIG
    wait(pid_file, emit)


def hang_holding_the_gil(pid_file: Path | None, emit: Emit) -> None:
    if pid_file:
        pid_file.write_text(str(os.getpid()), encoding="ascii")
    re.match(r"(a*)*b", "a" * 60)


def sleep_in_c_holding_the_gil(emit: Emit) -> None:
    beat("sleeping in C", num_graphs=1)
    time.sleep(1.0)  # the beat goes out before nothing can
    ctypes.PyDLL(None).sleep(600)


def loop_for_ever(emit: Emit) -> None:
    while True:
        pass


def wait_for_a_thread_that_waits(emit: Emit) -> None:
    mine, other = threading.Lock(), threading.Lock()

    def take_both(first: threading.Lock, second: threading.Lock) -> None:
        with first:
            time.sleep(0.1)
            with second:
                pass

    threading.Thread(target=take_both, args=(other, mine), daemon=True).start()
    take_both(mine, other)


def beat_steadily(num_beats: int, interval_s: float, emit: Emit) -> int:
    for number in range(num_beats):
        beat("stepping", num_graphs=10, step=number + 1, num_steps=num_beats)
        time.sleep(interval_s)
    return num_beats


def beat_then_wait(pid_file: Path, emit: Emit) -> None:
    beat("training teacher_gat", num_graphs=7, model="teacher_gat", epoch=3, step=12, num_steps=50)
    wait(pid_file, emit)


def start_grandchild_and_wait(pid_file: Path, emit: Emit) -> None:
    grandchild = subprocess.Popen(["sleep", "600"])
    (pid_file.parent / "grandchild").write_text(str(grandchild.pid), encoding="ascii")
    wait(pid_file, emit)


def dereference_null(emit: Emit) -> None:
    ctypes.string_at(0)


def read_a_file_cut_short(path: Path, emit: Emit) -> int:
    import numpy as np

    np.save(path, np.arange(1 << 16))
    mapped = np.load(path, mmap_mode="r")
    os.truncate(path, 4096)
    return int(mapped.sum())


def start_threads_without_end(emit: Emit) -> None:
    _leave_address_space(64)
    ended = threading.Event()
    try:
        while True:
            threading.Thread(target=ended.wait, daemon=True).start()
    finally:
        ended.set()


def explain_a_lack_of_memory(emit: Emit) -> None:
    raise GraphStoreError("cannot write the graph store") from OSError(12, "Cannot allocate memory")


def variable(name: str, emit: Emit) -> str | None:
    return os.environ.get(name)


def start_grandchild_and_die(pid_file: Path, emit: Emit) -> None:
    grandchild = subprocess.Popen(["sleep", "600"])
    pid_file.write_text(str(grandchild.pid), encoding="ascii")
    os.kill(os.getpid(), signal.SIGKILL)


def end_by(signum: int, emit: Emit) -> None:
    emit(ChainStarted(dataset="last words"))
    os.kill(os.getpid(), signum)
    time.sleep(60)


def leave(code: int, emit: Emit) -> None:
    os._exit(code)


def fail(kind: str, emit: Emit) -> None:
    raise {
        "capture": CaptureError("set_01/a.csv line 7: bad hex"),
        "store": GraphStoreError("damaged store"),
        "training": TrainingError("loss is not finite"),
        "artifact": ArtifactError("sha256 differs"),
        "settings": SettingsError("training.lr: too high"),
        "nested": TrainingProcessError("cuda_oom", "one graph does not fit"),
        "memory": MemoryError(),
        "enomem": OSError(12, "Cannot allocate memory"),
        "value": ValueError("a bug"),
        "exit": SystemExit(3),
        "unpicklable": TwoArgumentsError("this", "that"),
    }[kind]


def fail_in_torch(kind: str, emit: Emit) -> None:
    import torch

    accelerator_error: Any = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    out_of_memory: Any = torch.AcceleratorError("CUDA error: out of memory")
    accelerator_error.error_code, out_of_memory.error_code = 700, 2
    raise {
        "oom": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        "accelerator": accelerator_error,
        "accelerator_oom": out_of_memory,
        "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
        "cublas_oom": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
        "shape": RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    }[kind]


def _leave_address_space(mib: int) -> None:
    size = int(re.findall(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))[0]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (size + (mib << 20),) * 2)


def exhaust_with_bytes(emit: Emit) -> None:
    _leave_address_space(64)
    bytearray(1 << 30)


def exhaust_with_small_objects(emit: Emit) -> None:
    _leave_address_space(64)
    kept: list[list[int]] = []
    while True:
        kept.append([1, 2, 3])


def exhaust_with_numpy(emit: Emit) -> None:
    import numpy as np

    _leave_address_space(64)
    np.ones(1 << 28)


def exhaust_with_torch(emit: Emit) -> None:
    import torch

    _leave_address_space(64)
    torch.ones(1 << 28)


def exhaust_with_polars(emit: Emit) -> None:
    import polars as pl

    frame = pl.DataFrame({"a": [1]})
    _leave_address_space(256)
    frame.select(pl.col("a").repeat_by(1 << 28))


def exhaust_cgroup(emit: Emit) -> None:
    emit(ChainStarted(dataset="begun"))
    kept = []
    while True:
        kept.append(b"x" * (1 << 20))


def return_something_unpicklable(emit: Emit) -> Any:
    return threading.Lock()


def emit_something_unpicklable(emit: Any) -> None:
    emit(threading.Lock())


def hold_on_gpu(mib: int, emit: Emit) -> None:
    import torch

    torch.zeros(mib << 20, dtype=torch.uint8, device="cuda")


def break_cuda(emit: Emit) -> None:
    import torch

    torch.zeros(4, device="cuda")[torch.tensor([99], device="cuda")].sum().item()


if __name__ == "__main__":
    import polars as pl  # as whoever writes events has: it has a way with Ctrl-C of its own

    pl.DataFrame({"a": [1]}).lazy().collect()
    with TrainingProcess("child", Path(sys.argv[3])) as process:
        process.run(f"tests.training_targets:{sys.argv[1]}", Path(sys.argv[2]), on_fact=lambda fact: None)
