"""Descriptions that MLflow shows of plans, datasets, phases and models: markdown, from the log alone."""

from collections.abc import Iterator, Mapping, Sequence

from core.analytics import markdown
from core.analytics.markdown import plain
from core.analytics.metrics import (
    folder_order,
    format_duration,
    format_memory,
    format_metric,
    format_number,
    fusion_verdict,
    model_order,
)
from core.analytics.results import DatasetResult, PhaseResult, RetrainingResults
from core.analytics.versions import DECIDING_MODEL, Metrics, ModelVersion

KEPT = "\n\n---\n*Written from the event log. What you write below this line is kept.*\n"
"""Parts what is written here from what people write."""

_MAX_TEXT = 5000
_MOST_VERSIONS = 10
_SHOWN_MODELS = ("teacher_gat", "student_gat", "fusion")
_PURPOSE = {
    "graphs": "Captures made into graphs.",
    "teacher": "Full-size VGAE (learns benign traffic) and GAT (learns from labels).",
    "student": "Compressed VGAE and GAT, distilled from the teacher: small enough for a vehicle.",
    "fusion": "DQN agent that weighs the scores of the student's VGAE and GAT, and two baselines.",
    "evaluation": "All models and baselines on every test folder; figures are with the dataset's run.",
}


def with_own_words(note: str, there: str) -> str:
    """A description brought up to date, with what a person added to it.

    Args:
        note: What it is to say.
        there: What it says so far.

    Returns:
        At most 5000 characters; the note gives way.
    """
    _, parted, own = there.partition(KEPT)
    own = own if parted else there
    return note[: max(0, _MAX_TEXT - len(KEPT) - len(own))] + KEPT + own


def run_note(results: RetrainingResults, dataset: str = "", phase: str = "") -> str:
    """Describe a plan, one of its datasets, or one of the phases of that."""
    chain = results.datasets.get(dataset, DatasetResult())
    if phase:
        return _phase_note(dataset, phase, chain)
    return _dataset_note(dataset, chain) if dataset else _plan_note(results)


def _plan_note(results: RetrainingResults) -> str:
    machine = results.machine
    device = " ".join(
        [plain(str(machine.get("device_name", "an unknown device"))), f"({machine.get('precision', '?')})"]
    )
    code = [f"release {machine['code_version']}"] if machine.get("code_version") else []
    code += [f"commit {machine['code_commit'][:12]}"] if machine.get("code_commit") else []
    status = results.status if results.status != "unfinished" else "not finished"
    took = f" after {format_duration(results.duration_s)}" if results.duration_s is not None else ""
    rows = [
        [
            name,
            dataset.status.replace("_", " "),
            _done(dataset),
            _mcc_range(dataset.metrics.get("fusion", {})),
        ]
        for name, dataset in results.datasets.items()
    ]
    files = [
        "dashboard.html` (everything about the plan)",
        "dashboard.png`",
        "results.json`",
    ]
    parts = [
        f"Retraining plan, **{status}**{took}, on {', '.join([device, *map(plain, code)])}.",
        _table(["dataset", "outcome", "phases done", "fusion: MCC on test folders"], rows) if rows else "",
        "\n".join(_failures(results.datasets)),
        "Under *Artifacts*: "
        + ", ".join(f"`{plain(results.plan_id)}_{name}" for name in files)
        + (
            ", `recommended_settings.yaml` (for `--config` of the next plan)"
            if results.recommendation
            else ""
        )
        + ".",
    ]
    return "\n\n".join(filter(None, parts))


def _done(dataset: DatasetResult) -> str:
    due = [phase for phase in dataset.phases.values() if phase.status != "skipped"]
    return f"{sum(phase.status == 'completed' for phase in due)} of {len(due)}"


def _mcc_range(folders: Mapping[str, Metrics]) -> str:
    """Lowest and highest MCC over test folders; a dash where none is defined."""
    defined = [value for metrics in folders.values() if (value := metrics.get("mcc")) is not None]
    if not defined:
        return "–"
    low, high = (format_number(float(bound)) for bound in (min(defined), max(defined)))
    return low if low == high else f"{low} to {high}"


def _failures(datasets: Mapping[str, DatasetResult]) -> Iterator[str]:
    for name, dataset in datasets.items():
        for phase, result in dataset.phases.items():
            if result.error:
                yield f"- **{plain(name)} {phase} failed**: {_first_line(result.error)}"


def _dataset_note(name: str, dataset: DatasetResult) -> str:
    parts = [f"Chain of **{plain(name)}**: {dataset.status.replace('_', ' ')}, {_done(dataset)} phases done."]
    if graphs := dataset.graphs:
        share = graphs.num_attack_graphs / graphs.num_graphs if graphs.num_graphs else 0.0
        parts.append(
            f"{format_number(graphs.num_graphs)} windows of {format_number(graphs.num_frames)} frames, "
            f"{share:.0%} of them with attacks; "
            + ", ".join(f"{format_number(num)} {split}" for split, num in graphs.splits.items())
            + "."
        )
    if dataset.quarantine:
        num_rows = sum(rows.num_rows for rows in dataset.quarantine.values())
        parts.append(f"{format_number(num_rows)} rows of captures were put aside.")
    if dataset.refused_captures:
        parts.append(f"{len(dataset.refused_captures)} captures were refused.")
    if dataset.shared_captures:
        parts.append("Some captures serve both training and test: **results are not independent**.")
    if dataset.metrics:
        shown = [model for model in _SHOWN_MODELS if model in dataset.metrics]
        rows = [
            [folder, *(format_metric(dataset.metrics[model].get(folder, {}), "mcc") for model in shown)]
            for folder in folder_order(dataset)
        ]
        parts += [
            _table(["test folder", *(f"{model}: MCC" for model in shown)], rows),
            fusion_verdict(dataset).sentence(),
        ]
    parts += list(_failures({name: dataset}))
    parts.append("*Model metrics* has all metrics of every test folder, *System metrics* what was used.")
    return "\n\n".join(parts)


def _phase_note(dataset: str, phase: str, chain: DatasetResult) -> str:
    result = chain.phases.get(phase, PhaseResult())
    attempts = f" at attempt {result.attempts}" if result.attempts > 1 else ""
    parts = [f"{_PURPOSE.get(phase, plain(phase))} Dataset **{plain(dataset)}**."]
    said = [f"{result.status.capitalize()}{attempts}"]
    if result.duration_s is not None:
        peak = format_memory(result.peak_memory_mib)
        said.append(f"took {format_duration(result.duration_s)}, peak memory {peak}")
    parts.append(", ".join(said) + ".")
    models = [name for name in model_order(chain.training) if phase in name]
    rows = [
        [
            name,
            str(trained.last_epoch + 1),
            "–" if trained.best_epoch is None else str(trained.best_epoch + 1),
            "–" if trained.best_val_loss is None else format_number(trained.best_val_loss),
        ]
        for name in models
        if (trained := chain.training[name])
    ]
    if rows:
        parts.append(_table(["model", "epochs", "best epoch", "its validation loss"], rows))
    failures = [
        f"- attempt {failure.attempt}, {plain(failure.kind)}: {_first_line(failure.message)}"
        for failure in result.failures
    ]
    parts.append("\n".join(failures))
    parts.append("What was used meanwhile is shown under *System metrics* of the dataset's run.")
    return "\n\n".join(filter(None, parts))


def model_note(name: str, versions: Sequence[tuple[str, ModelVersion]]) -> str:
    """Describe a registered model.

    Args:
        name: As it is registered.
        versions: All of them, oldest first, each after the number that MLflow gave it.
    """
    newest = versions[-1][1]
    rows = [
        [number, f"{v.saved_at:%Y-%m-%d %H:%M}", v.plan_id, _mcc(v.score), v.role or "–", v.reason]
        for number, v in reversed(versions[-_MOST_VERSIONS:])
    ]
    return "\n\n".join(
        [
            f"{_PURPOSE.get(newest.phase, plain(newest.phase))} Dataset **{plain(newest.dataset)}**.",
            _table(["version", "saved (UTC)", "plan", "validation MCC", "role", "why"], rows),
            "**champion** is the version to use, **challenger** the newest one that has not, or not yet, "
            f"taken over. What counts is the MCC of `{DECIDING_MODEL[newest.phase]}` on validation windows; "
            "test folders choose nothing.",
            f'`mlflow.artifacts.download_artifacts("models:/{name}@champion")` gives its tensors '
            "(safetensors) and all else (JSON); nothing is pickled.",
        ]
    )


def version_note(version: ModelVersion, parent: str) -> str:
    """Describe one version of a registered model.

    Args:
        version: The version.
        parent: What it was trained from, as people call it; empty if nothing.
    """
    code = f", release {plain(version.code_version)}" if version.code_version else ""
    role = ": ".join(filter(None, (version.role, plain(version.reason))))
    rows = [
        [
            model,
            format_number(version.num_parameters[model]) if model in version.num_parameters else "–",
            _mcc(version.val_mcc.get(model)),
            _mcc_range(version.metrics.get(model, {})),
            str(len(version.metrics.get(model, {}))),
        ]
        for model in model_order({**version.num_parameters, **version.val_mcc})
    ]
    parts = [
        f"{role[:1].upper()}{role[1:]}." if role else "",
        f"Saved {version.saved_at:%Y-%m-%d %H:%M} UTC by plan {plain(version.plan_id)}{code}."
        + (f" Trained from {plain(parent)}." if parent else ""),
        _table(["model", "parameters", "validation MCC", "test MCC", "test folders"], rows) if rows else "",
    ]
    return "\n\n".join(filter(None, parts))


def _mcc(value: float | None) -> str:
    return "–" if value is None else format_number(value)


def _first_line(text: str) -> str:
    return plain(text.partition("\n")[0][:300])


def _table(header: list[str], rows: list[list[str]]) -> str:
    """A table with room between its columns, which MLflow's style leaves out."""
    first, *others = [[f"{cell}&emsp;" for cell in line] for line in (header, *rows)]
    return markdown.table(first, others)
