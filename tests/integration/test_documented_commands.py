"""What the documentation says can be done is done: its commands, settings files, Python and links."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from core.can.demo import ensure_demo
from core.events.catalogue import PhaseStarted, PlanCreated, PlanFinished
from core.events.event import Event
from core.events.log import EventLog
from settings.app import read_settings
from settings.data import DemoSettings
from settings.layout import Layout
from settings.sources import ENV_PREFIX
from settings.tree import flat
from tests.commands import HANG_S, ROOT, TINY, environment, free_port, prefect_server, wait_for
from tests.documents import DOCUMENTS, NAMES, Command, anchors, blocks, commands, links, pattern

NOT_RUN = {
    "make test": "runs this test",
    "make setup": "installs from a package index, which a fresh clone in CI does before any test",
}
"""Commands that are not run here, each with the reason."""

EXIT_CODES = {
    "python -m flows.retrain --dry-run --config typo.yaml": 2,
    "python -m flows.retrain --environment gpu --dry-run --datasets demo": 2,
    "CAN_RETRAIN__STORAGE__URL=share python -m flows.status --output-dir outputs/machine-2": 2,
    "CAN_RETRAIN__STORAGE__URL=share/can python -m flows.status --output-dir outputs/demo": 2,
    "python -m flows.retrain --datasets set_02 --output-dir outputs/none": 1,
    "PREFECT_API_URL=http://127.0.0.1:9/api python -m flows.retrain --datasets demo "
    "--output-dir outputs/away": 1,
    "CAN_RETRAIN__TRACKING__MLFLOW_URI=http://127.0.0.1:9 CAN_RETRAIN__TRACKING__MLFLOW_LIMIT_S=3 "
    "python -m flows.analyze": 1,
}
"""Of commands that are shown to fail."""


BEGIN_WITHOUT_OUTPUTS = ("docs/guides/first-run.md",)
"""Documents for those who have just cloned the repository."""


class Service(NamedTuple):
    """A command that goes on until it is stopped.

    Attributes:
        begins: How the command begins.
        arguments: Added to it, so that services of several documents never meet.
        sign: An address that answers, or what it prints, once it works.
    """

    begins: str
    arguments: str
    sign: str


SERVICES = (
    Service("prefect server start", "--port {port}", "http://127.0.0.1:{port}/api/health"),
    Service("mlflow ui", "--port {port}", "http://127.0.0.1:{port}/health"),
    Service("prefect worker start", "", "started!"),
    Service("python -m flows.status --serve", "--port {port}", "http://127.0.0.1:{port}/"),
)


class Place(NamedTuple):
    """Where a document's commands are run.

    Attributes:
        folder: A copy of the repository with captures and outputs.
        variables: Environment of the commands.
        names: What stands in documents for things whose names differ, and what they are here.
    """

    folder: Path
    variables: dict[str, str]
    names: dict[str, str]

    def text(self, documented: str) -> str:
        for name, here in self.names.items():
            documented = documented.replace(name, here)
        return documented


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as url:
        yield url


@pytest.fixture(scope="session")
def prepared(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with captures, a finished plan, and one that was interrupted."""
    folder = tmp_path_factory.mktemp("documented") / "repository"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    ):
        if name and (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    simulated = ensure_demo(DemoSettings(seed=1, duration_s=4.0, cache_dir=folder / "simulated"))
    shutil.move(simulated, folder / "data" / "hcrl-ch")
    captures = folder / "captures" / "my_car"
    captures.mkdir(parents=True)
    shutil.copy(folder / "data/hcrl-ch/train_01_attack_free/attack-free-1.csv", captures / "normal.csv")
    shutil.copy(folder / "data/hcrl-ch/train_02_with_attacks/DoS-1.csv", captures / "flooding.csv")
    shutil.copy(folder / "data/hcrl-ch/train_02_with_attacks/fuzzing-1.csv", folder / "drive.csv")
    _write_settings(folder)
    for name in ("demo", "enhanced_retraining"):
        shutil.copytree(finished, folder / "outputs" / name, ignore=shutil.ignore_patterns("prefect"))
    _interrupt(Layout(folder / "outputs" / "enhanced_retraining"))
    return folder


def _write_settings(folder: Path) -> None:
    """The settings file of the guide to captures, and one with a typo in it."""
    written = blocks(ROOT / "docs/guides/your-captures.md", "yaml")[0].text
    (folder / "my_settings.yaml").write_text(written)
    (folder / "typo.yaml").write_text(written.replace("attack_free:", "atack_free:"))


def _interrupt(layout: Layout) -> None:
    """Let the plan have stopped in its last phase, and never have had a dataset that cannot be done."""
    whole = EventLog(layout.events)
    (plan_id,) = whole.streams()
    events = [_without("broken", event) for event in whole.read(plan_id) if _dataset(event) != "broken"]
    shutil.rmtree(layout.events / plan_id)
    last = max(place for place, event in enumerate(events) if event.type == PhaseStarted.TYPE)
    assert PlanFinished.TYPE in {event.type for event in events[last:]}
    EventLog(layout.events).append([event._replace(position=-1) for event in events[: last + 1]])


def _dataset(event: Event) -> str:
    return str(event.payload.get("dataset", ""))


def _without(dataset: str, event: Event) -> Event:
    if event.type != PlanCreated.TYPE:
        return event
    steps = [step for step in event.payload["steps"] if step["dataset"] != dataset]
    return event._replace(payload={**event.payload, "steps": steps})


@pytest.fixture
def place(prepared: Path, api: str, tmp_path: Path) -> Place:
    """A fresh copy of what was prepared, and settings under which a plan takes seconds."""
    folder = tmp_path / "repository"
    shutil.copytree(prepared, folder, symlinks=True)
    given = {name: value for name, value in flat(TINY) if not isinstance(value, dict)}
    variables = {ENV_PREFIX + name.upper().replace(".", "__"): str(value) for name, value in given.items()}
    (plan_id,) = EventLog(Layout(folder / "outputs" / "demo").events).streams()
    port = free_port()
    return Place(
        folder,
        environment(
            **variables,
            COLUMNS="120",
            PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            PREFECT_API_URL=api,
            PREFECT_HOME=str(tmp_path / "home"),
            PORT=str(port),
        ),
        {
            "PLAN_ID": plan_id,
            "/captures": str(folder / "captures"),
            "http://127.0.0.1:4200/api": api,
        },
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [n for n, d in zip(NAMES, DOCUMENTS, strict=True) if commands(d)])
def test_every_command_does_what_the_documentation_says(name: str, place: Place) -> None:
    if name in BEGIN_WITHOUT_OUTPUTS:
        shutil.rmtree(place.folder / "outputs")
    exported: list[str] = []
    for command in commands(ROOT / name):
        what = f"{name}:{command.line}: {command.text}"
        if command.text in NOT_RUN:
            continue
        if command.text.startswith(("export ", "source ")):
            exported.append(place.text(command.text))
            continue
        text = "; ".join([*exported, _as_made(place.text(command.text))])
        if service := _service(command):
            _start_and_stop(text, service, place, what)
            continue
        shown = subprocess.run(
            ["bash", "-c", text], cwd=place.folder, env=place.variables, capture_output=True, text=True,
            timeout=HANG_S, check=False,
        )  # fmt: skip
        said = shown.stdout + shown.stderr
        assert shown.returncode == EXIT_CODES.get(command.text, 0), f"{what}\n{said}"
        assert pattern(command.output).search(said), f"{what}\nprinted:\n{said}"


def _as_made(text: str) -> str:
    """A ``make`` target as the command that it runs: the environment is there already."""
    if not text.startswith("make "):
        return text
    # Tests are run by make themselves, which would have this one tell of its folder.
    asked = ["make", "--no-print-directory", "-n", *text.split()[1:]]
    shown = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    return shown.stdout.splitlines()[-1]


def _service(command: Command) -> Service | None:
    bare = re.sub(r"^(\w+=\S+ )+", "", command.text)
    return next((service for service in SERVICES if bare.startswith(service.begins)), None)


def _start_and_stop(text: str, service: Service, place: Place, what: str) -> None:
    port = free_port()
    printed = place.folder / "printed"
    with printed.open("w") as out:
        process = subprocess.Popen(
            ["bash", "-c", f"{text.removesuffix('&')} {service.arguments.format(port=port)}"],
            cwd=place.folder,
            env=place.variables,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
    try:
        sign = service.sign.format(port=port)
        wait_for(lambda: _answers(sign) if "://" in sign else sign in printed.read_text(), process)
    except AssertionError as error:
        raise AssertionError(f"{what}\n{printed.read_text()}") from error
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def test_a_command_that_is_not_run_is_in_the_documentation() -> None:
    documented = {command.text for document in DOCUMENTS for command in commands(document)}
    assert set(NOT_RUN) | set(EXIT_CODES) <= documented


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, d in zip(NAMES, DOCUMENTS, strict=True) if blocks(d, "python")])
def test_python_in_the_documentation_runs(name: str, place: Place) -> None:
    for block in blocks(ROOT / name, "python"):
        shown = subprocess.run(
            [sys.executable, "-c", block.text],
            cwd=place.folder, env=place.variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert shown.returncode == 0, f"{name}:{block.line}\n{shown.stdout}{shown.stderr}"


@pytest.mark.parametrize("name", NAMES)
def test_settings_in_the_documentation_are_allowed(name: str, tmp_path: Path) -> None:
    for block in blocks(ROOT / name, "yaml"):
        file = tmp_path / "settings.yaml"
        file.write_text(block.text)
        assert read_settings(file).origins, f"{name}:{block.line}"


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    document = ROOT / name
    for target in links(document):
        path, _, anchor = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        assert there.exists(), f"{name}: {target}"
        assert not anchor or anchor in anchors(there), f"{name}: {target}"
