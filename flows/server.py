"""The Prefect API to talk to: the configured one, else a server of our own on loopback while it is needed.

Run as ``python -m flows.server SOCKET [LOG]`` it is that server, on a socket that it inherits; it ends when
its standard input closes, so it cannot outlive the process that started it, however that one ended.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.logs import LogFile, open_output
from settings.errors import RetrainError
from settings.layout import Layout

_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 10.0
# Nothing is ever sent to anyone.
_QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "true"}
# Leases in memory, Prefect's default, are forgotten by a server that is killed: their slots never come back.
_KEPT_LEASES = {
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"
}


@contextmanager
def prefect_api(output_dir: Path) -> Iterator[str]:
    """Make sure that a Prefect API answers, and name it to this process and its children.

    A configured one (``PREFECT_API_URL`` or the active profile) is used as it is. Otherwise a server is
    started on a free loopback port with its database in ``{output_dir}/prefect`` (or ``PREFECT_HOME``).

    Args:
        output_dir: The plan's output directory.

    Yields:
        The API's URL.

    Raises:
        RetrainError: The configured API does not answer, or a server does not start.
    """
    layout = Layout(output_dir)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

    if configured := get_current_settings().api.url:
        require_answer(configured)
        yield configured
        return
    home = Path(os.environ.get("PREFECT_HOME") or layout.prefect_home.resolve())
    home.mkdir(parents=True, exist_ok=True)
    if home == layout.prefect_home.resolve():
        home.chmod(0o700)  # its database may hold secrets of blocks
    with (
        _local_server(layout.orchestrator_logs / "prefect-server.log", home) as url,
        temporary_settings({PREFECT_API_URL: url}),
    ):
        try:
            yield url
        finally:
            _send_what_is_queued()


@contextmanager
def _local_server(log_path: Path, home: Path) -> Iterator[str]:
    with open_output(log_path) as log, bound_socket() as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        inherited = listening.fileno()
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(inherited), str(log_path.with_suffix(".jsonl"))],
            pass_fds=[inherited],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PREFECT_HOME": str(home)},
            start_new_session=True,  # Ctrl-C ends the run first, then the server
        )
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _answers(url):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RetrainError(f"the local Prefect server did not start, see {log_path}")
            time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        try:
            server.communicate(timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.communicate()


def bound_socket(port: int = 0) -> socket.socket:
    """A loopback socket for a server to inherit: nobody takes its port before the server has started.

    Args:
        port: 0 for any that is free.

    Raises:
        OSError: The port is in use.
    """
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of one before it may linger
    bound.bind(("127.0.0.1", port))
    return bound


def _send_what_is_queued() -> None:
    """Task states and logs travel in the background: a server that stops first never sees the last."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=_STOP_TIMEOUT_S, at_exit=False)


def require_answer(url: str) -> None:
    """Ask a configured API with its own credentials and certificates.

    Args:
        url: Of the API, for people.

    Raises:
        RetrainError: It does not answer, or it refuses.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
        if error is not None:
            raise RetrainError(
                f"the Prefect API at {url} does not answer ({error}): start it (prefect server start), or "
                "correct PREFECT_API_URL; without one, python -m flows.retrain starts a server of its own"
            ) from error
        try:
            client.api_version()  # health is told to everyone
        except PrefectHTTPStatusError as refusal:
            raise RetrainError(
                f"the Prefect API at {url} refuses ({refusal.response.status_code}): set "
                "PREFECT_API_AUTH_STRING to what its PREFECT_SERVER_API_AUTH_STRING is"
            ) from refusal


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:  # noqa: S310 - a Prefect API
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _serve(listening: socket.socket, records: Path | None = None) -> None:
    for name, value in {**_QUIET, **_KEPT_LEASES}.items():
        os.environ.setdefault(name, value)
    port = listening.getsockname()[1]  # pages of the UI would ask the API on Prefect's usual one
    os.environ.setdefault("PREFECT_SERVER_UI_API_URL", f"http://127.0.0.1:{port}/api")
    os.environ.setdefault("PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT", "false")
    import prefect  # noqa: F401 - sets up its logging, which is added to here
    import uvicorn

    if records:
        file = LogFile(records)
        for name in ("", "uvicorn", "fastapi"):
            logging.getLogger(name).addHandler(file)

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_parent, daemon=True).start()
    app = "prefect.server.api.server:create_app"
    config = uvicorn.Config(app, factory=True, log_level="warning", log_config=None)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), *map(Path, sys.argv[2:]))
