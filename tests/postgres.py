"""A real PostgreSQL for a test, run by somebody who is not root."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.commands import BUSY_S, free_port


@contextmanager
def postgres() -> Iterator[str]:
    """Address of an empty database; the test is skipped where there is no PostgreSQL with pg_trgm."""
    for program in ("initdb", "pg_ctl", "createdb"):
        if not shutil.which(program):
            pytest.skip(f"no {program}: PostgreSQL is not installed")
    # pytest's folders are closed to others.
    folder = Path(tempfile.mkdtemp(prefix="can-ids-postgres-"))
    port, data = free_port(), folder / "data"
    try:
        (folder / "password").write_text("pg-pa55word")
        _run("initdb", "-D", data, "-U", "prefect", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        _run("pg_ctl", "-D", data, "-w", "-t", f"{BUSY_S:.0f}", "-o", options, "-l", folder / "log", "start")
        try:
            at = ("-h", "127.0.0.1", "-p", str(port), "-U", "prefect")
            _run("createdb", *at, "prefect", PGPASSWORD="pg-pa55word")
            try:
                _run("psql", *at, "-c", "CREATE EXTENSION pg_trgm", "prefect", PGPASSWORD="pg-pa55word")
            except subprocess.CalledProcessError as error:
                pytest.skip(f"PostgreSQL has no pg_trgm: {error.stderr}")
            yield f"postgresql+asyncpg://prefect:pg-pa55word@127.0.0.1:{port}/prefect"
        finally:
            _run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _run(*command: str | Path, **variables: str) -> None:
    """PostgreSQL refuses to be run by root, so root runs it as somebody else."""
    somebody: dict[str, Any] = {}
    if os.getuid() == 0:
        names = {user.pw_name for user in pwd.getpwall()}
        user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        somebody = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        if command[0] == "initdb":
            for path in (Path(str(command[2])).parent, *Path(str(command[2])).parent.iterdir()):
                os.chown(path, user.pw_uid, user.pw_gid)
    subprocess.run(
        command,
        cwd="/",
        env={**os.environ, **variables},
        # A server that goes on would keep a pipe open.
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if command[0] == "psql" else None,
        text=True,
        check=True,
        **somebody,
    )
