"""``docs/reference/outputs.md``: every file of an output directory, from the layout and the schema."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from docs.generate.markdown import code, page, prose, table
from settings.layout import Layout

_SCHEMA = Path(__file__).resolve().parents[2] / "core" / "analytics" / "results.schema.json"

_INTRODUCTION = """\
Everything lies below one output directory (`output_dir`, `--output-dir`; `outputs/enhanced_retraining`
if you say nothing, `outputs/demo` for `make demo`).

- **truth** cannot be computed from anything else: back it up;
- **projection** is computed from the truth: delete it, and the command in the last column writes the
  same bytes;
- **cache** saves time: delete it, and it is made again when it is needed;
- **log** tells people what went on: delete it, and it is gone, but nothing else needs it."""


class _Row(NamedTuple):
    kind: Literal["truth", "projection", "cache", "log"]
    written_by: str
    rebuilt_by: str


_ANALYZE = "`python -m flows.analyze`"
_FOLDERS: dict[str, _Row] = {
    "events": _Row(
        "truth",
        "every flow and training process, by appending",
        "nothing; `python -m flows.verify` checks it",
    ),
    "leases": _Row("cache", "whoever works on a dataset, every few seconds", "the next plan"),
    "telemetry": _Row(
        "truth", "the resource sampler of each chain", "nothing; dashboards without it lack resource charts"
    ),
    "unshared_telemetry": _Row(
        "cache", "the resource sampler of each chain", "nothing; it is sent within seconds"
    ),
    "saved_models": _Row("truth", "training processes, at the end of a phase", "retraining"),
    "checkpoints": _Row(
        "truth", "training processes, while a phase goes", "retraining; only an interrupted plan needs them"
    ),
    "graphs": _Row("cache", "the phase *graphs*", "the next plan that needs them"),
    "generated_configs": _Row("projection", "the analyze flow", _ANALYZE),
    "coordinator_logs": _Row("log", "the retrain flow", ""),
    "orchestrator_logs": _Row("log", "the local Prefect server", ""),
    "process_logs": _Row("log", "training processes and who watches them", ""),
    "watched": _Row("cache", "the sensor flows", "the sensor flows, which then tell once more"),
    "prefect_home": _Row("log", "the local Prefect server", ""),
}
_PLAN_FILES: dict[str, tuple[str, str]] = {
    "plan.json": ("What the plan set out to do: steps with reasons, settings, machine.", "the retrain flow"),
    "results.json": ("What came of it: the fields [below](#resultsjson).", "the analyze flow"),
    "dashboard.html": ("The dashboard; one file that needs no network.", "the analyze flow"),
    "dashboard.png": ("Its picture.", "the analyze flow"),
}
_OTHER: dict[str, tuple[str, _Row]] = {
    "mlflow.db": ("MLflow's database, unless `tracking.mlflow_uri` names another.",
                  _Row("projection", "the MLflow process", _ANALYZE)),
    "mlartifacts/": ("MLflow's files: dashboards, settings, models as safetensors.",
                     _Row("projection", "the MLflow process", _ANALYZE)),
    "shared-storage.json": ("Where the truth is, if `storage.url` names shared storage; and its identity.",
                            _Row("truth", "the first command with `storage.url`", "setting `storage.url`")),
}  # fmt: skip
_SHARED = """\
With [`storage.url`](settings.md#storage.url) the truth lies in a folder or a bucket that machines share; in
the output directory of each, `saved_models/`, `checkpoints/` and `events/telemetry/` are then caches. See
[many machines](../guides/many-machines.md).

| path below `storage.url` | what | written by |
|---|---|---|
| `events/{plan_id}/` | the event log: what `events/` is above | every flow, by appending |
| `telemetry/plan={plan_id},dataset={dataset}/` | resource samples | the resource sampler of each chain |
| `files/models/{sha256}` | models, by content; never deleted | the chain, before the log names them |
| `files/checkpoints-{plan_id}/` | checkpoints with their sidecars, while their phase goes | likewise |
| `leases/` | who works on what, and that they live | whoever works, every few seconds |
| `identity/id` | a random name: every machine knows it by it | the first command |"""
_MODEL_FILES = """\
`saved_models/` has, for each dataset:

| file | what |
|---|---|
| `best_teacher_model_{dataset}.pth` | teacher: VGAE and GAT |
| `final_student_model_{dataset}.pth` | the distilled student: VGAE and GAT |
| `fusion_agent_{dataset}.pth` | the DQN agent and its two baselines |

`torch.load(path, weights_only=True)` reads them; a plain dictionary holds weights, sizes, scaling, and
what they were made from."""


def outputs_page() -> str:
    """The page.

    Raises:
        KeyError: The layout names a folder that this page does not know.
    """
    schema = json.loads(_SCHEMA.read_text())
    return page(
        "Outputs",
        _INTRODUCTION,
        "## Files of a plan",
        table(["file", "kind", "what", "written by", "rebuilt by"], _plan_files()),
        "## Folders and databases",
        table(["path", "kind", "what", "written by", "rebuilt by"], _folders()),
        "## Shared storage",
        _SHARED,
        "## Models",
        _MODEL_FILES,
        "## results.json",
        "The whole truth of it is [results.schema.json](../../core/analytics/results.schema.json); "
        "every file is checked against it.",
        *_objects(schema),
    )


def _plan_files() -> Iterator[tuple[str, ...]]:
    for ending, (what, writer) in _PLAN_FILES.items():
        yield code(f"{{plan_id}}_{ending}"), "projection", what, writer, _ANALYZE


def _folders() -> Iterator[tuple[str, ...]]:
    root = Path("root")
    for name, member in vars(Layout).items():
        if isinstance(member, property):
            path = getattr(Layout(root), name).relative_to(root)
            row = _FOLDERS[name]
            yield code(f"{path}/"), row.kind, prose(inspect.getdoc(member)), row.written_by, row.rebuilt_by
    for name, (what, row) in _OTHER.items():
        yield code(name), row.kind, what, row.written_by, row.rebuilt_by


def _objects(schema: dict[str, Any]) -> Iterator[str]:
    """The results themselves, then every kind of object in them, in the order in which they are named."""
    waiting, seen = [schema], [schema["title"]]
    while waiting:
        object_ = waiting.pop(0)
        yield f"### {object_['title']}"
        if description := object_.get("description"):
            yield prose(description)
        yield table(
            ["field", "type", "meaning"],
            [
                (code(name), _type(field), prose(field.get("description")))
                for name, field in object_.get("properties", {}).items()
            ],
        )
        for name in _named(object_.get("properties", {})):
            if name not in seen:
                seen.append(name)
                waiting.append(schema["$defs"][name])


def _named(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if reference := part.get("$ref"):
            yield reference.rpartition("/")[2]
        for value in part.values():
            yield from _named(value)
    elif isinstance(part, list):
        for value in part:
            yield from _named(value)


def _type(field: dict[str, Any]) -> str:
    if reference := field.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if alternatives := field.get("anyOf"):
        return " or ".join(_type(alternative) for alternative in alternatives)
    if choices := field.get("enum"):
        return ", ".join(map(code, choices))
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    if field.get("type") == "object" and isinstance(values := field.get("additionalProperties"), dict):
        return f"object of {_type(values)}"
    return field.get("format") or field.get("type") or "any"
