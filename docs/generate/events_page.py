"""``docs/reference/events.md``: every event type, from the catalogue and the upcasters."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from core.events.catalogue import CATALOGUE, Fact
from core.events.event import Event
from core.events.telemetry import ResourceSample
from core.events.upcasters import UPCASTERS
from docs.generate.markdown import attributes, code, field_docstrings, page, prose, table

_INTRODUCTION = """\
The event log is the truth: every file, dashboard and MLflow run is computed from it. It lies in
`{output_dir}/events/{plan_id}/` or below [`storage.url`](settings.md#storage.url), in parquet, and is read
from Python:

```python
from pathlib import Path
from core.events.open import open_log
from settings.layout import Layout

log = open_log(Layout(Path("outputs/demo")))
for plan_id in log.streams():
    for event in log.read(plan_id):
        print(event.position, event.occurred_at, event.type, dict(event.payload))
```

An event is an envelope around the payload of its type. A payload holds plain values only. When its shape
changes, its version rises, and events of earlier versions are lifted to the newest one as they are read:
a log of any release stays readable. An event that is newer than the software that reads it is refused,
with advice."""


_COMMON = {
    "dataset": "Name of the dataset.",
    "phase": "`graphs`, `teacher`, `student`, `fusion` or `evaluation`.",
    "model": "Name of the model, for example `teacher_gat`.",
    "attempt": "Number of the try, from 1.",
    "epoch": "Number of the epoch, from 0.",
    "step": "Optimizer steps of the epoch that were done.",
    "folder": "Test folder.",
    "path": "The file or folder.",
    "reason": "Why.",
    "message": "What the failure said.",
    "sha256": "Hash of the file.",
    "duration_s": "Seconds it took.",
    "device_name": "The GPU or CPU, as its driver names it.",
    "status": "`completed` or `failed`.",
}
"""What a field means wherever its event says nothing more of it."""


def events_page() -> str:
    """The page."""
    envelope = table(["field", "type", "meaning"], _described(Event, attributes(Event.__doc__)))
    samples = table(
        ["column", "type", "meaning"], _described(ResourceSample, attributes(ResourceSample.__doc__))
    )
    return page(
        "Events",
        _INTRODUCTION,
        "## The envelope",
        envelope,
        "## All types",
        table(
            ["type", "version", "what happened"],
            [
                (f"[`{name}`](#{name})", str(cls.VERSION), prose(cls.__doc__).partition("\n")[0])
                for name, cls in CATALOGUE.items()
            ],
        ),
        *(part for name, cls in CATALOGUE.items() for part in _event(name, cls)),
        "## Resource samples",
        "Beside the events, in `{output_dir}/events/telemetry/plan={plan_id}/dataset={dataset}/*.parquet`. "
        + prose(ResourceSample.__doc__),
        samples,
    )


def _event(name: str, cls: type[Fact]) -> Iterator[str]:
    yield f"### {name}"
    yield f"{prose(cls.__doc__)} Version {cls.VERSION}, class `{cls.__name__}`."
    yield table(["field", "type", "meaning"], _described(cls, field_docstrings(cls)))
    steps = [
        f"- version {version} → {version + 1}: {_lift(UPCASTERS[name, version])}"
        for version in range(1, cls.VERSION)
    ]
    if steps:
        yield "Lifted from earlier versions, with what an older event gets:\n\n" + "\n".join(steps)


def _described(cls: type, says: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning of each field of a class that holds data."""
    for name, annotation in inspect.get_annotations(cls).items():
        if name not in ("TYPE", "VERSION"):
            yield code(name), code(_plain(annotation)), says.get(name, _COMMON.get(name, ""))


def _plain(annotation: Any) -> str:
    """A type as it is written, without the modules it comes from."""
    text = annotation.__name__ if type(annotation) is type else str(annotation)
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text)


def _lift(step: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    """What a step adds to a payload that lacks it."""
    added = step({})
    return "adds " + ", ".join(f"{code(name)} ({code(str(value))})" for name, value in added.items())
