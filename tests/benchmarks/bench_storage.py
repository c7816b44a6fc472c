"""What shared storage costs: ``python -m tests.benchmarks.bench_storage``.

A checkpoint of 25 MiB shared by the supervisor, and six processes that append to one plan at once, on a
folder and on moto's S3 server (a Python process of this machine: its figures say how many requests there
are, not how fast a real server is).
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.events.catalogue import ChainStarted, CheckpointWritten, to_event
from core.events.log import EventLog
from core.events.object_store import ObjectStore
from core.events.stores import LocalStore, SegmentStore
from core.planning.shared.files import SharedFiles, checkpoint_path
from settings.layout import Layout
from tests.object_server import serving

CHECKPOINT_BYTES = 25 * 2**20
RESULTS = Path(__file__).parent / "results" / "storage.json"
NUM_WRITERS = 6
NUM_EVENTS = 25
"""Of each writer."""


def open_part(url: str, part: str) -> SegmentStore:
    return ObjectStore(f"{url}/{part}") if url.startswith("s3://") else LocalStore(Path(url) / part)


def share_checkpoints(url: str, folder: Path) -> list[float]:
    """Seconds of each of six checkpoints, of which two are kept."""
    layout = Layout(folder)
    files, took = SharedFiles(layout, open_part(url, "files")), []
    for epoch in range(6):
        content = os.urandom(CHECKPOINT_BYTES)
        sha256 = hashlib.sha256(content).hexdigest()
        names = {"dataset": "demo", "phase": "teacher", "model": "vgae", "sha256": sha256}
        fact = CheckpointWritten(
            **names, epoch=epoch, num_steps=None, path=f"epoch-{epoch:06d}-step-00000000.pt"
        )
        path = checkpoint_path(layout, fact)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.with_suffix(".json").write_text(json.dumps({"sha256": sha256}))
        began = time.perf_counter()
        with files.sharing("plan", fact, keep=2):
            pass
        took.append(time.perf_counter() - began)
    return took


def append(url: str) -> None:
    log = EventLog(open_part(url, "events"))
    log.read("plan")
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(NUM_EVENTS):
        log.append([to_event("plan", ChainStarted(dataset="demo", holder=""))])


def appended_per_s(url: str) -> float:
    """Events a second of all writers together."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_storage", url]
    writers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(NUM_WRITERS)
    ]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
    began = time.perf_counter()
    for writer in writers:
        writer.communicate("go\n")
    took_s = time.perf_counter() - began
    num = len(EventLog(open_part(url, "events")).read("plan"))
    assert num == NUM_WRITERS * NUM_EVENTS, num
    return num / took_s


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(serving())
        os.environ |= {
            "AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        }  # fmt: skip
        from s3fs import S3FileSystem

        S3FileSystem().mkdir("bench-bucket")
        found: dict[str, Any] = {}
        for name, url in (("folder", str(folder / "share")), ("moto S3", "s3://bench-bucket/can")):
            took = share_checkpoints(url, folder / name)
            found[name] = {
                "checkpoint_mib": 25,
                "shared_s": [round(seconds, 2) for seconds in took],
                "num_writers": NUM_WRITERS,
                "events_per_s": round(appended_per_s(url), 1),
            }
    found |= {"machine": platform.machine(), "load": round(os.getloadavg()[0], 1)}
    found |= {"date": datetime.now(UTC).date().isoformat()}
    print(json.dumps(found, indent=2))
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    append(sys.argv[1]) if sys.argv[1:] else main()
