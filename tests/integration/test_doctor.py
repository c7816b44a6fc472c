"""The doctor in surroundings that are really broken; it says so in seconds and tells no secret."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from flows.doctor_probes import TIMEOUT_S
from tests.commands import HANG_S, ROOT, PrefectServer, config, free_port, run

PASSWORD = "doctor:a-secret-that-nobody-is-told"  # noqa: S105 - of a server of this test


def examine(
    output_dir: Path, *flags: str, patience_s: float = HANG_S, **variables: Any
) -> tuple[int, dict[str, dict[str, str]], str]:
    """Exit code, checks by name, and all that was printed; servers have some time to answer."""
    doctor = ("tests.patient_doctor", str(patience_s), "--json", "--output-dir", str(output_dir))
    shown = run(*doctor, *flags, cwd=ROOT, **variables)
    checks = {check["name"]: check for check in json.loads(shown.stdout)}
    return shown.returncode, checks, shown.stdout + shown.stderr


@contextmanager
def silent_server() -> Iterator[str]:
    """A server that accepts and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def server_of_last_year() -> Iterator[str]:
    """A server whose clock went wrong, and that is no Prefect server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def date_time_string(self, timestamp: float | None = None) -> str:
            del timestamp
            return "Sun, 23 Nov 2025 00:00:00 GMT"

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_sound_machine_has_nothing_wrong(tmp_path: Path) -> None:
    code, checks, _ = examine(tmp_path / "out", "--config", str(config(tmp_path)))
    assert code == 0, checks
    assert checks["file system"]["level"] in ("ok", "warning")
    assert checks["Prefect server"]["level"] == "not applicable"
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["settings.yaml"]


@pytest.mark.slow
def test_all_that_is_broken_at_once_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    tmp_path.chmod(0o777)
    with silent_server() as silent:
        code, checks, _ = examine(
            tmp_path / "out",
            patience_s=TIMEOUT_S,
            PREFECT_API_URL=f"{silent}/api",
            CAN_RETRAIN__TRACKING__MLFLOW_URI=f"http://127.0.0.1:{free_port()}",
            CAN_RETRAIN__RETENTION__MIN_FREE_GIB="1000000000",
            CAN_RETRAIN__STORAGE__URL=str(tmp_path / "file"),
            CAN_RETRAIN__DATA__DATA_DIR=str(tmp_path / "nowhere"),
        )
    assert code == 1
    wrong = {name for name, check in checks.items() if check["level"] == "wrong"}
    assert wrong == {"output directory", "disk", "Prefect server", "MLflow", "shared storage"}
    assert "does not answer within" in checks["Prefect server"]["found"]
    assert "refused" in checks["MLflow"]["found"]
    assert checks["captures"]["level"] == "warning"
    assert all(checks[name]["remedy"] for name in wrong)


@pytest.mark.slow
def test_a_place_that_cannot_be_written_and_a_server_of_another_kind_and_time(tmp_path: Path) -> None:
    with server_of_last_year() as other:
        code, checks, _ = examine(
            Path("/proc/out"), PREFECT_API_URL=f"{other}/api", CAN_RETRAIN__TRACKING__MLFLOW="false"
        )
    assert code == 1
    assert checks["output directory"]["level"] == checks["Prefect server"]["level"] == "wrong"
    assert checks["clock"]["level"] == "wrong"
    assert checks["MLflow"]["level"] == "not applicable"


@pytest.mark.slow
def test_limits_of_the_shell_are_seen(tmp_path: Path) -> None:
    shown = subprocess.run(
        ["bash", "-c", 'ulimit -n 200; umask 000; exec "$0" "$@"', sys.executable,
         "-m", "flows.doctor", "--json", "--output-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    checks = {check["name"]: check["level"] for check in json.loads(shown.stdout)}
    assert shown.returncode == 1
    assert checks["open files"] == "wrong"
    assert checks["umask"] == "warning"


@pytest.mark.slow
def test_a_full_disk_is_seen(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    try:
        with pytest.raises(OSError, match="No space"):
            (disk / "fill").write_bytes(bytes(2**21))
        code, checks, _ = examine(disk / "out")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert code == 1
    assert checks["disk"]["level"] == checks["output directory"]["level"] == "wrong"


@pytest.mark.slow
def test_a_real_server_is_examined_and_no_password_is_told(tmp_path: Path) -> None:
    server = PrefectServer(tmp_path / "home", PREFECT_SERVER_API_AUTH_STRING=PASSWORD)
    try:
        server.start()
        known: dict[str, Any] = {
            "PREFECT_API_URL": server.api,
            "CAN_RETRAIN__TRACKING__MLFLOW_URI": "http://me:mlflow-secret@127.0.0.1:9",
        }
        code, checks, said = examine(tmp_path / "out", PREFECT_API_AUTH_STRING=PASSWORD, **known)
        assert checks["Prefect server"]["level"] == "ok", said
        assert checks["Prefect password"]["level"] == checks["schedules"]["level"] == "ok"
        assert checks["Prefect version"]["level"] == checks["clock"]["level"] == "ok"
        assert checks["lease storage"]["level"] == "ok"
        assert checks["work pool gpu"]["level"] == checks["deployments"]["level"] == "warning"
        assert checks["concurrency limits"]["level"] == "warning"
        assert "retrain/nightly" in checks["deployments"]["found"]
        refused = examine(tmp_path / "out", PREFECT_API_AUTH_STRING="doctor:another-secret", **known)
        unknown = examine(tmp_path / "out", **known)
    finally:
        server.stop()
    assert (code, refused[0], unknown[0]) == (1, 1, 1)
    assert "does not take our password" in refused[1]["Prefect server"]["found"]
    assert "asks for a password" in unknown[1]["Prefect server"]["found"]
    told = said + refused[2] + unknown[2]
    for secret in ("a-secret-that-nobody-is-told", "another-secret", "mlflow-secret"):
        assert secret not in told
