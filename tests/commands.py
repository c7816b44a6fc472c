"""Commands run as a user runs them: processes, exit codes, servers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psutil
import yaml

from core.planning.shared.lock import is_held
from flows.server import bound_socket
from settings.layout import Layout

ROOT = Path(__file__).resolve().parents[1]
TINY: dict[str, Any] = {
    "data": {"demo": {"duration_s": 8.0}},
    "graph": {"window": 50, "block_windows": 20},
    "training": {"epochs": 1, "min_steps_per_epoch": 4, "dqn": {"episodes": 1}},
    "resources": {"sample_interval_s": 0.2, "flush_interval_s": 1.0},
    "tracking": {"mlflow_limit_s": 900.0},
}
"""Settings for a chain of a few seconds."""
HANG_S = 600.0
"""After this long a command hangs, however busy the machine is."""
BUSY_S = 240.0
"""How long a server may be too busy to answer."""


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without what a developer may have configured."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CAN_RETRAIN__"))}
    return {**kept, **extra}


def start(*arguments: str, cwd: Path = ROOT, **extra: str) -> "subprocess.Popen[str]":
    """``python -m ARGUMENTS`` in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env=environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str, cwd: Path = ROOT, **extra: str) -> "subprocess.CompletedProcess[str]":
    """``python -m ARGUMENTS`` to its end."""
    return ended(start(*arguments, cwd=cwd, **extra))


def ended(process: "subprocess.Popen[str]") -> "subprocess.CompletedProcess[str]":
    """What became of a process, waited for."""
    out, err = process.communicate(timeout=HANG_S)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def config(folder: Path, **groups: Any) -> Path:
    """A settings file of ``TINY`` with some groups replaced."""
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump({**TINY, **groups}))
    return path


@contextmanager
def prefect_server(output_dir: Path, **extra: str) -> Iterator[str]:
    """A Prefect server on an output directory's own database; yields its API's URL."""
    server = PrefectServer(Layout(output_dir).prefect_home, **extra)
    try:
        server.start()
        yield server.api
    finally:
        server.stop()


class PrefectServer:
    """A Prefect server that may be killed and started again at the same address."""

    def __init__(self, home: Path, **extra: str) -> None:
        self.home = home
        self._bound = bound_socket()
        self._port = self._bound.getsockname()[1]
        self.api = f"http://127.0.0.1:{self._port}/api"
        self._environment = environment(PREFECT_HOME=str(home), **extra)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._bound.fileno() < 0:  # handed to one before
            self._bound = bound_socket(self._port)
        with self._bound as inherited:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.server", str(inherited.fileno())],
                pass_fds=[inherited.fileno()],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.PIPE,
            )
        wait_for(lambda: answers(self.api))

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.communicate()

    def stop(self) -> None:
        """Close its standard input: it ends when the process that started it does."""
        if self._process and self._process.poll() is None:
            assert self._process.stdin
            self._process.stdin.close()
            assert self._process.wait(BUSY_S) in (0, -signal.SIGTERM)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(url: str) -> bool:
    """Whether a server says that it is healthy."""
    try:
        urllib.request.urlopen(f"{url}/health").close()
    except OSError:
        return False
    return True


def ask(method: str, url: str, headers: Mapping[str, str] | None = None, body: Any = None) -> Any:
    """A Prefect server's answer.

    One that is too busy (its SQLite is locked) is asked again, as Prefect's own client does.
    """
    content = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, content, sent, method=method)
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            with urllib.request.urlopen(request) as response:
                return json.loads(response.read() or "null")
        except urllib.error.HTTPError as error:
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR or time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def post(url: str, headers: Mapping[str, str] | None = None, **body: Any) -> Any:
    """The answer to a filter, all that there is if it is empty."""
    return ask("POST", url, headers, body)


def wait_for(
    condition: Callable[[], Any], process: "subprocess.Popen[str] | None" = None, timeout_s: float = HANG_S
) -> None:
    """Wait until something holds, or until the process that should make it so has ended."""
    deadline = time.monotonic() + timeout_s
    while True:
        has_ended = process is not None and process.poll() is not None
        if condition():
            return
        assert not has_ended, process and process.communicate()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def holder(output_dir: Path) -> int | None:
    """The process that carries out a plan in an output directory."""
    if not is_held(output_dir):
        return None
    return int((output_dir / ".lock").read_text() or 0) or None


def is_gone(pid: int) -> bool:
    """Whether a process lives no more, waited for or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def processes_that_name(text: str) -> list[int]:
    """Living processes, other than this one, whose command line or environment mentions a text."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        if int(proc.name) == os.getpid():
            continue
        try:
            seen = (proc / "cmdline").read_bytes() + b"\0" + (proc / "environ").read_bytes()
        except OSError:
            continue
        if text.encode() in seen:
            found.append(int(proc.name))
    return found
