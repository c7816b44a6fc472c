"""What the data of a plan was like: frames, graphs, and what was put aside."""

from collections.abc import Mapping

from core.analytics import html
from core.analytics.metrics import format_number
from core.analytics.results import DatasetResult


def data_quality(datasets: Mapping[str, DatasetResult]) -> str:
    """Frames, graphs, quarantined rows and refused or shared captures."""
    rows = []
    for name, dataset in datasets.items():
        graphs, quarantined = dataset.graphs, sum(q.num_rows for q in dataset.quarantine.values())
        splits = graphs.splits if graphs else {}
        attacks = f"{graphs.num_attack_graphs / max(1, graphs.num_graphs):.1%}" if graphs else "–"
        cells = [
            format_number(graphs.num_frames) if graphs else "–",
            format_number(graphs.num_graphs) if graphs else "–",
            attacks,
            *(format_number(splits[split]) if split in splits else "–" for split in ("train", "val", "test")),
            format_number(quarantined),
            format_number(len(dataset.refused_captures)),
            format_number(len(dataset.shared_captures)),
        ]
        rows.append(html.row(name, (html.cell(content, "number") for content in cells)))
    columns = [
        "dataset", "frames", "graphs", "attack graphs", "train", "validation", "test",
        "quarantined rows", "refused captures", "shared captures",
    ]  # fmt: skip
    parts = [html.table("Data quality", columns, rows, 1)] if rows else []
    if details := [line for name, dataset in datasets.items() for line in _data_problems(name, dataset)]:
        parts += [
            "<h3>What was put aside</h3>",
            html.table("Problems", ["dataset", "capture", "what"], details, 3),
        ]
    return "".join(parts)


def _data_problems(name: str, dataset: DatasetResult) -> list[str]:
    lines = [
        (path, f"{format_number(q.num_rows)} rows quarantined: " + ", ".join(
            f"{reason} ({format_number(count)})" for reason, count in sorted(q.reasons.items())
        ))
        for path, q in sorted(dataset.quarantine.items())
    ]  # fmt: skip
    lines += [(path, f"refused: {reason}") for path, reason in sorted(dataset.refused_captures.items())]
    lines += [
        (
            str(c.get("path")),
            f"same bytes as {c.get('other_path')} of {c.get('other_dataset')}: not independent",
        )
        for c in dataset.shared_captures
    ]
    return [html.row(name, [html.cell(path, "long"), html.cell(what, "long")]) for path, what in lines]
