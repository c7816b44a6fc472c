"""Curves and scores of models.

Charts of one dataset are linked: the page sets the signals ``folder`` (number of the test folder that is
shown) and ``model`` (number of the model that stands out, -1 for none) in all of them at once. A chart holds
all folders, as lines of comma-separated numbers, so that another one is shown without another chart.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt

from core.analytics.charts.base import Chart, data
from core.analytics.charts.keys import model_colour, model_dash, model_shape
from core.analytics.detection import CurvePoint, FolderScores, curve, gap
from core.analytics.theme import colour
from core.events.catalogue import ScoresMeasured

_CURVE_PX = 250
_TICKS = [0, 0.0001, 0.001, 0.01, 0.1, 1]
_PERCENT = "datum.value === 0 ? '0' : format(datum.value, datum.value < 0.001 ? '.2%' : '~%')"
_SCORE_ROW_PX = 62
_NEVER = "2"
"""A cut that no score reaches."""


def roc_chart(scores: Mapping[str, FolderScores], folders: Sequence[str], models: Sequence[str]) -> Chart:
    """Recall over false-positive rate, which is stretched where it is small; thresholds are marked."""
    rare = min((p.false_positive_rate for p in _points(scores) if p.false_positive_rate), default=1e-3)
    constant = 1e-4 if rare < 5e-4 else 1e-3
    x = alt.X(
        "x:Q",
        title="false-positive rate (stretched where small)",
        scale=alt.Scale(type="symlog", constant=constant, domain=[0, 1], nice=False),
        axis=alt.Axis(values=[t for t in _TICKS if t == 0 or t >= constant], labelExpr=_PERCENT),
    )
    y = alt.Y("y:Q", title="recall", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5))
    rows, gaps = _curve_rows(scores, folders, models, roc=True), _gaps(scores, folders, "ROC")
    chance = [{"x": 10 ** (-4 + step / 8), "y": 10 ** (-4 + step / 8)} for step in range(33)]
    rule = (
        alt.Chart(data([{"x": 0.0, "y": 0.0}, *chance]))
        .mark_line(color=colour("muted"), strokeWidth=1, opacity=0.5)
        .encode(x=x, y=y)
        .transform_filter(f"indexof({[missing['f'] for missing in gaps]}, folder) < 0")
    )
    return _curves(rule, rows, gaps, models, x, y)


def precision_recall_chart(
    scores: Mapping[str, FolderScores], folders: Sequence[str], models: Sequence[str]
) -> Chart:
    """Precision over recall; thresholds are marked, and the precision of alarming always."""
    x = alt.X("x:Q", title="recall", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5))
    y = alt.Y("y:Q", title="precision", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5))
    shares = [
        {"f": number, "y": points[-1].precision}
        for number, folder in enumerate(folders)
        if (points := next((p for m in scores.get(folder, {}).values() if (p := curve(m))), None))
    ]
    rule = (
        alt.Chart(data(shares))
        .mark_rule(color=colour("muted"), strokeWidth=1, opacity=0.5)
        .encode(y=y)
        .transform_filter("datum.f === folder")
    )
    rows = _curve_rows(scores, folders, models, roc=False)
    return _curves(rule, rows, _gaps(scores, folders, "precision-recall curve"), models, x, y)


def _points(scores: Mapping[str, FolderScores]) -> Iterable[CurvePoint]:
    return (point for models in scores.values() for fact in models.values() for point in curve(fact))


def _curve_rows(
    scores: Mapping[str, FolderScores], folders: Sequence[str], models: Sequence[str], *, roc: bool
) -> str:
    lines = ["f,m,x,y,s,t"]
    for number, folder in enumerate(folders):
        for model, fact in scores.get(folder, {}).items():
            points = curve(fact)
            alarming = sum(cut > fact.threshold for cut in fact.cuts)
            for place, point in enumerate(points):
                x, y = (point.false_positive_rate, point.recall) if roc else (point.recall, point.precision)
                if y is None:
                    continue
                cut = _NEVER if point.cut is None else f"{point.cut:.4g}"
                at = int(place == alarming)
                lines.append(f"{number},{models.index(model)},{x:.4g},{y:.4g},{cut},{at}")
    return "\n".join(lines)


def _gaps(scores: Mapping[str, FolderScores], folders: Sequence[str], what: str) -> list[dict[str, Any]]:
    reasons = {
        number: next((gap(fact) for fact in scores.get(folder, {}).values()), "scores were not logged")
        for number, folder in enumerate(folders)
    }
    return [{"f": n, "text": [f"no {what}:", reason]} for n, reason in reasons.items() if reason]


def _curves(
    below: Chart,
    rows: str,
    gaps: Sequence[dict[str, Any]],
    models: Sequence[str],
    x: alt.X,
    y: alt.Y,
) -> Chart:
    base = (
        alt.Chart(_csv(rows, ["f", "m", "x", "y", "s", "t"]))
        .transform_filter("datum.f === folder")
        .transform_calculate(model=_named(models))
    )
    numbers = list(range(len(models)))
    ink = alt.Color(
        "m:N", legend=None, scale=alt.Scale(domain=numbers, range=[model_colour(name) for name in models])
    )
    shown = alt.condition("model < 0 || datum.m === model", alt.value(1.0), alt.value(0.13))
    lines = base.mark_line(strokeWidth=1.9, strokeJoin="round").encode(
        x=x,
        y=y,
        color=ink,
        opacity=shown,
        order=alt.Order("s:Q", sort="descending"),
        strokeDash=alt.StrokeDash(
            "m:N", legend=None, scale=alt.Scale(domain=numbers, range=[model_dash(name) for name in models])
        ),
    )
    tooltip = [
        alt.Tooltip("model:N"),
        alt.Tooltip("x:Q", title=_title(x), format=".4~g"),
        alt.Tooltip("y:Q", title=_title(y), format=".4~g"),
        alt.Tooltip("s:Q", title="alarm from score", format=".4~g"),
    ]
    touch = (
        base.transform_filter(f"datum.s < {_NEVER}")
        .mark_point(filled=True, size=90, opacity=0)
        .encode(x=x, y=y, tooltip=tooltip)
    )
    marks = (
        base.transform_filter("datum.t === 1")
        .mark_point(size=95, strokeWidth=1.4, stroke=colour("surface"))
        .encode(
            x=x,
            y=y,
            tooltip=tooltip,
            fill=alt.Fill(
                "m:N",
                legend=None,
                scale=alt.Scale(domain=numbers, range=[model_colour(name) for name in models]),
            ),
            opacity=shown,
            shape=alt.Shape(
                "m:N",
                legend=None,
                scale=alt.Scale(domain=numbers, range=[model_shape(name) for name in models]),
            ),
        )
    )
    reason = (
        alt.Chart(data(gaps))
        .mark_text(color=colour("muted"), fontStyle="italic", fontSize=12, lineHeight=16)
        .encode(x=alt.value(alt.ExprRef("width / 2")), y=alt.value(_CURVE_PX // 2), text="text:N")
        .transform_filter("datum.f === folder")
    )
    return _linked(alt.layer(below, lines, touch, marks, reason)).properties(
        width="container", height=_CURVE_PX
    )


def score_chart(scores: Mapping[str, FolderScores], folders: Sequence[str], models: Sequence[str]) -> Chart:
    """Scores of each model: attack windows above the line, benign ones below; the threshold is marked.

    Heights are cube roots of shares of the fullest bin of a class, as few windows matter beside thousands.
    """
    present = [model for model in models if any(model in of for of in scores.values())]
    lines = ["f,r,b,k,n,h"]
    limits: list[dict[str, Any]] = []
    for number, folder in enumerate(folders):
        for model, fact in scores.get(folder, {}).items():
            row = present.index(model)
            limits.append({"f": number, "r": row, "model": model, "threshold": fact.threshold})
            lines += [f"{number},{row},{line}" for line in _bars(fact)]
    names = [{"r": row, "model": model, "m": models.index(model)} for row, model in enumerate(present)]
    scale = alt.Scale(domain=[0, len(present)], reverse=True, nice=False)
    x = alt.X("x:Q", title="score", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5, grid=False))
    y = alt.Y("y:Q", axis=None, scale=scale)
    shown = alt.condition("model < 0 || datum.m === model", alt.value(1.0), alt.value(0.2))
    kinds = ["attack", "benign", "unlabelled"]
    numbered = f"{json.dumps([models.index(model) for model in present])}[datum.r]"
    bars = (
        alt.Chart(_csv("\n".join(lines), ["f", "r", "b", "n", "h"], text=("k",)))
        .transform_filter("datum.f === folder")
        .transform_calculate(
            m=numbered,
            model=f"{json.dumps(present)}[datum.r]",
            x="datum.b / 50 + 0.001",
            x2="(datum.b + 1) / 50 - 0.001",
            y="datum.r + 0.64",
            y2="datum.r + 0.64 + (datum.k === 'benign' ? 0.34 : -0.4) * datum.h",
            scores="format(datum.b / 50, '.2f') + ' to ' + format((datum.b + 1) / 50, '.2f')",
        )
        .mark_rect()
        .encode(
            x=x,
            x2="x2:Q",
            y=y,
            y2="y2:Q",
            opacity=shown,
            color=alt.Color(
                "k:N",
                legend=None,
                scale=alt.Scale(domain=kinds, range=[colour("bad"), colour("accent"), colour("graphs")]),
            ),
            tooltip=[
                "model:N",
                "scores:N",
                alt.Tooltip("k:N", title="windows"),
                alt.Tooltip("n:Q", title="count"),
            ],
        )
    )
    baseline = (
        alt.Chart(data(names))
        .transform_calculate(y="datum.r + 0.64")
        .mark_rule(color=colour("muted"), strokeWidth=0.7)
        .encode(y=y)
    )
    labels = (
        alt.Chart(data(names))
        .transform_calculate(y="datum.r + 0.12")
        .mark_text(align="left", baseline="middle", fontSize=11, color=colour("ink"))
        .encode(x=alt.value(0), y=y, text="model:N", opacity=shown)
    )
    base = (
        alt.Chart(data(limits))
        .transform_filter("datum.f === folder")
        .transform_calculate(
            m=numbered,
            y="datum.r + 0.2",
            y2="datum.r + 0.98",
            text="'threshold ' + format(datum.threshold, '.3~g')",
        )
    )
    at = alt.X("threshold:Q", scale=alt.Scale(domain=[0, 1]))
    rules = base.mark_rule(color=colour("ink"), strokeWidth=1.6).encode(x=at, y=y, y2="y2:Q", opacity=shown)
    told = base.mark_text(
        align=alt.ExprRef("datum.threshold > 0.6 ? 'right' : 'left'"),
        dx=alt.ExprRef("datum.threshold > 0.6 ? -4 : 4"),
        baseline="middle",
        fontSize=10,
        color=colour("muted"),
    ).encode(x=at, y=y, text="text:N", opacity=shown)
    return _linked(alt.layer(bars, baseline, labels, rules, told)).properties(
        width="container", height=_SCORE_ROW_PX * max(1, len(present))
    )


def _bars(fact: ScoresMeasured) -> Iterable[str]:
    """Bin, kind, count and height of each bar of a histogram."""
    attacks = fact.num_attacks_by_score or [0] * len(fact.num_windows_by_score)
    others = [num - num_attacks for num, num_attacks in zip(fact.num_windows_by_score, attacks, strict=True)]
    rest = "unlabelled" if fact.num_attacks_by_score is None else "benign"
    for kind, counts in (("attack", attacks), (rest, others)):
        for number, count in enumerate(counts):
            if count:
                yield f"{number},{kind},{count},{(count / max(counts)) ** (1 / 3):.3g}"


def _linked(chart: Chart) -> Chart:
    """Give a chart the signals that the page sets; the first folder is shown at first."""
    return chart.add_params(alt.param(name="folder", value=0), alt.param(name="model", value=-1))


def _csv(rows: str, numbers: Sequence[str], text: Sequence[str] = ()) -> alt.InlineData:
    """Rows as text: a fifth of the size of a mapping per row."""
    parse = {**dict.fromkeys(numbers, "number"), **dict.fromkeys(text, "string")}
    return alt.InlineData(values=rows, format=alt.CsvDataFormat(type="csv", parse=parse))


def _named(models: Sequence[str]) -> str:
    return f"{json.dumps(list(models))}[datum.m]"


def _title(axis: Any) -> str:
    return str(axis.to_dict(context={"data": None})["title"]).partition(" (")[0]
