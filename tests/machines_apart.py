"""Machines that are none: a network, process and host name space each, on the machine that tests run on.

What runs in one sees neither the others' processes nor their addresses; only folders are shared. Killing the
first process of one kills all of it at once, as a power cut does.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.commands import ROOT, environment


@dataclass
class Host:
    """One of them.

    Attributes:
        name: Its host name.
        gateway: Address of the machine that tests run on, as it is seen from here.
        folder: Where it keeps what is its own.
    """

    name: str
    gateway: str
    folder: Path
    _namespace: str
    _processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self, command: Sequence[str], **extra: str) -> None:
        """Run a command, whose output goes to the host's folder."""
        log = self.folder / f"{self.name}-{len(self._processes)}.log"
        isolated = ["unshare", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
        script = 'hostname "$0" && exec "$@"'
        with log.open("wb") as output:
            self._processes.append(
                subprocess.Popen(
                    [
                        "ip",
                        "netns",
                        "exec",
                        self._namespace,
                        *isolated,
                        "sh",
                        "-c",
                        script,
                        self.name,
                        *command,
                    ],
                    cwd=ROOT,
                    env=environment(**extra),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def lose(self) -> None:
        """Kill everything on it at once, without a word."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()


@contextmanager
def hosts(folder: Path, *names: str) -> Iterator[list[Host]]:
    """Make hosts; all that runs on them ends with the context. Where none may be made the test is skipped.

    Args:
        folder: Where each gets a folder.
        names: Their names.
    """
    made = []
    # Names and addresses of this process: what one that was killed left behind is in nobody's way.
    own = os.getpid() % 2**14
    try:
        for i, name in enumerate(names):
            namespace, link = f"can-test-{own}-{name}", f"can{own}-{i}"
            subnet, first = f"10.{128 + own // 256}.{own % 256}", 4 * i
            try:
                _ip("netns", "add", namespace)
                made.append(Host(name, f"{subnet}.{first + 1}", folder / name, namespace))
                _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
                _ip("addr", "add", f"{subnet}.{first + 1}/30", "dev", link)
                _ip("link", "set", link, "up")
                for arguments in (
                    ("addr", "add", f"{subnet}.{first + 2}/30", "dev", "eth0"),
                    ("link", "set", "eth0", "up"),
                    ("link", "set", "lo", "up"),
                ):
                    _ip("-n", namespace, *arguments)
                subprocess.run(
                    ["unshare", "--uts", "--pid", "--fork", "true"], check=True, capture_output=True
                )
            except (OSError, subprocess.CalledProcessError) as error:
                said = getattr(error, "stderr", b"") or str(error).encode()
                pytest.skip(f"cannot make a host of namespaces: {said.decode().strip()}")
            (folder / name).mkdir(parents=True, exist_ok=True)
        yield made
    finally:
        for host in made:
            host.lose()
            subprocess.run(["ip", "netns", "del", host._namespace], check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


PYTHON, PREFECT = sys.executable, str(Path(sys.executable).with_name("prefect"))
