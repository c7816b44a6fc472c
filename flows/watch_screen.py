"""The live view in a terminal: as many lines as there are rows, as wide as it is."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from core.logs import printable
from core.planning.live.view import Decision, GpuView, LiveView, PhaseView, ProcessView
from flows.tables import STYLES
from flows.watch_words import (
    eta_words,
    gib,
    headline,
    left_words,
    model_words,
    now_words,
    percent,
    time_of_day,
    what_next,
)

_MOST_DECISIONS, _LEAST_DECISIONS, _MOST_ERROR_LINES = 8, 2, 3
_SPARKS = 24


@dataclass(frozen=True)
class _Glyphs:
    full: str
    end: str
    empty: str
    spark: str
    marks: dict[str, str]


_UNICODE = _Glyphs(
    "━",
    "╸",
    "─",
    "▁▂▃▄▅▆▇█",
    {
        "completed": "✓",
        "running": "▸",
        "interrupted": "‖",
        "failed": "✗",
        "blocked": "⊘",
        "skipped": "=",
        "pending": "·",
    },
)
_ASCII = _Glyphs(
    "#",
    "#",
    ".",
    "_.-=*#",
    {
        "completed": "+",
        "running": ">",
        "interrupted": "|",
        "failed": "x",
        "blocked": "!",
        "skipped": "=",
        "pending": ".",
    },
)


@dataclass(frozen=True)
class LiveScreen:
    """A view, drawn to fit.

    Attributes:
        view: What to show.
        most_rows: No more rows than this share of the terminal's.
        advises: Whether to say what to do about a plan that does not go on.
    """

    view: LiveView
    most_rows: float = 1.0
    advises: bool = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lines that fit the terminal."""
        rows = max(8, int((console.height - 1) * self.most_rows))
        last = what_next(self.view) if self.advises else ""
        for line in screen_lines(self.view, options.max_width, rows, last, ascii_only=options.ascii_only):
            line.truncate(options.max_width, overflow="ellipsis")
            yield line


def screen_lines(
    view: LiveView, width: int, rows: int, last: str = "", *, ascii_only: bool = False
) -> list[Text]:
    """The lines of the live view; none is wrapped.

    Args:
        view: What to show.
        width: Columns there are.
        rows: Rows there are; datasets at rest, then decisions, make room.
        last: The last line.
        ascii_only: Whether the terminal knows no other characters.
    """
    draw = _Draw(width, _ASCII if ascii_only else _UNICODE)
    top, machine = list(draw.top(view)), [Text(), *draw.machine(view)]
    bottom = [*draw.error(view), *([Text(last, style="yellow")] if last else [])]
    room = rows - len(top) - len(machine) - len(bottom)
    phases = _phase_lines(draw, view.phases, room - _LEAST_DECISIONS - 1)
    num_decisions = min(_MOST_DECISIONS, room - len(phases) - 1)
    decisions = [draw.decision(d) for d in view.decisions[-num_decisions:]] if num_decisions > 0 else []
    parted = [Text(), *decisions] if decisions else []
    return [*top, *phases, *machine, *parted, *bottom][:rows]


def _phase_lines(draw: "_Draw", phases: Sequence[PhaseView], room: int) -> list[Text]:
    """Every phase; if that is too much, phases at rest side by side, then datasets at rest in a line each."""
    datasets: dict[str, list[PhaseView]] = {}
    for phase in phases:
        datasets.setdefault(phase.dataset, []).append(phase)
    at_work = {phase.dataset for phase in phases if phase.status == "running"}
    for opened, closely in ((set(datasets), False), (set(datasets), True), (at_work, True)):
        lines = [
            line
            for name, own in datasets.items()
            for line in (
                draw.dataset(name, own, closely=closely) if name in opened else [draw.closed(name, own)]
            )
        ]
        if len(lines) <= room:
            return lines
    # More datasets than rows: those at work first.
    lines = [
        line
        for name in datasets
        if name in at_work
        for line in draw.dataset(name, datasets[name], closely=True)
    ]
    rest = [draw.closed(name, own) for name, own in datasets.items() if name not in at_work]
    kept = rest[: max(0, room - len(lines) - 1)]
    hidden = len(rest) - len(kept)
    return [*lines, *kept, *([Text(f"and {hidden} more datasets", style="dim")] if hidden else [])]


@dataclass(frozen=True)
class _Draw:
    width: int
    glyphs: _Glyphs

    def top(self, view: LiveView) -> Iterator[Text]:
        left = Text.assemble((headline(view), "bold"), "  ", (view.status, STYLES.get(view.status, "bold")))
        if view.plan_id is None:
            yield Text("no plan yet", style="bold")
            return
        right = left_words(view)
        gap = self.width - left.cell_len - len(right)
        yield Text.assemble(left, " " * max(2, gap), right)
        style = STYLES.get(view.status, "cyan")
        yield Text.assemble(self.bar(view.fraction, self.width - 6, style), f" {percent(view.fraction):>5}")

    def dataset(self, name: str, phases: Sequence[PhaseView], *, closely: bool) -> Iterator[Text]:
        yield Text(printable(name), style="bold")
        for status, alike in groupby(phases, key=lambda phase: phase.status):
            group = list(alike)
            if closely and len(group) > 1 and status not in ("running", "failed"):
                yield Text.assemble(
                    self.mark(status), f" {', '.join(phase.phase for phase in group)}  ", (status, "dim")
                )
            else:
                for phase in group:
                    yield from self.phase(phase)

    def closed(self, name: str, phases: Sequence[PhaseView]) -> Text:
        statuses = [phase.status for phase in phases]
        done = sum(status in ("completed", "skipped") for status in statuses)
        begun = any(phase.attempt for phase in phases)
        worst = next((s for s in ("failed", "pending", "completed", "skipped") if s in statuses), "pending")
        if worst == "pending" and not begun:
            words = f"waits, {len(phases)} phases"
        else:
            words = f"{done} of {len(phases)} phases done"
        return Text.assemble((printable(name), "bold"), self.mark(worst), f" {words}")

    def mark(self, status: str) -> Text:
        return Text("  " + self.glyphs.marks.get(status, " "), style=STYLES.get(status, ""))

    def phase(self, phase: PhaseView) -> Iterator[Text]:
        head = Text.assemble(self.mark(phase.status), f" {phase.phase:<11}")
        again = f"attempt {phase.attempt}, " if phase.attempt > 1 else ""
        if phase.status != "running":
            yield Text.assemble(head, (f"{again}{printable(eta_words(phase))}", "dim"))
            return
        length = max(6, min(40, self.width - 60 - len(again)))
        yield Text.assemble(
            head,
            self.bar(phase.fraction, length, "cyan"),
            f" {percent(phase.fraction):>5}  {again}",
            (eta_words(phase), "bold"),
        )
        curve = next((model.train_losses for model in phase.models if model.name == phase.model), ())
        spark = self.spark(curve[-_SPARKS:])
        words = [*now_words(phase), *model_words(phase)]
        if spark:
            words = [f"{word} {spark}" if word.startswith("loss ") else word for word in words]
        for line in self.packed(words, 6):
            shown = Text("      " + line)
            shown.highlight_words([spark] * bool(spark), "magenta")
            yield shown

    def machine(self, view: LiveView) -> Iterator[Text]:
        r = view.resources
        length = max(6, min(24, (self.width - 61) // 2))
        ram = None if not r.ram_used_mib or not r.ram_total_mib else 100 * r.ram_used_mib / r.ram_total_mib
        yield Text.assemble(
            self.gauge("CPU", r.cpu_percent, length, 101, 101),
            f" of {r.num_cpus or '?'}  ",
            self.gauge("RAM", ram, length, 80, 92),
            f" of {gib(r.ram_total_mib)}  disk ",
            (f"{gib(r.disk_free_mib)} free", _worse(-(r.disk_free_mib or 1e9), -20_000, -4_000)),
        )
        for gpu in r.gpus:
            yield self.gpu(gpu, length)
        for process in view.processes:
            if process.state not in ("ended", "idle"):
                yield self.process(process)

    def gpu(self, gpu: GpuView, length: int) -> Text:
        vram = None
        if gpu.vram_used_mib is not None and gpu.vram_total_mib:
            vram = 100 * gpu.vram_used_mib / gpu.vram_total_mib
        limit = f" of {gpu.power_limit_w:.0f}" if gpu.power_limit_w else ""
        heat = gpu.temperature_c
        return Text.assemble(
            self.gauge(f"GPU{gpu.index}"[:4], gpu.utilization_percent, length, 101, 101),
            " " * 4,
            self.gauge("VRAM", vram, length, 92, 97),
            f" of {gib(gpu.vram_total_mib)}",
            "" if heat is None else (f"  {heat:.0f} °C", _worse(heat, 80, 88)),
            "" if gpu.power_w is None else f"  {gpu.power_w:.0f}{limit} W",
            (f"  {printable(gpu.name)}", "dim"),
        )

    def process(self, process: ProcessView) -> Text:
        parts = [process.state]
        if process.since_s is not None:
            parts.append(f"silent for {process.since_s:.0f} s")
        if process.rss_mib is not None:
            parts.append(f"{gib(process.rss_mib)} of RAM")
        if process.num_restarts:
            parts.append(f"{process.num_restarts} restart{'s' * (process.num_restarts != 1)}")
        if process.failure:
            parts.append(f"failed last by {process.failure}")
        style = STYLES.get(process.state, "")
        return Text.assemble(
            f"process of {printable(process.dataset)}  ", (", ".join(map(printable, parts)), style)
        )

    def decision(self, decision: Decision) -> Text:
        styles = {"good": "green", "warn": "yellow", "bad": "red"}
        where = f"{printable(decision.where)}: " if decision.where else ""
        return Text.assemble(
            (f"{time_of_day(decision.at)} ", "dim"),
            (where, "bold"),
            (printable(decision.text), styles.get(decision.tone, "")),
        )

    def error(self, view: LiveView) -> Iterator[Text]:
        if view.problem:
            yield Text()
            yield Text(printable(view.problem), style="red")
        if view.last_error is None or view.last_error.now == "completed":
            return
        error = view.last_error
        yield Text()
        yield Text(
            f"last error, {time_of_day(error.at)} UTC: {printable(error.where)}, attempt {error.attempt} "
            f"({error.kind}); the phase is {error.now} now",
            style="bold red",
        )
        for line in error.message.splitlines()[:_MOST_ERROR_LINES]:
            yield Text("  " + printable(line), style="red")

    def gauge(self, name: str, value: float | None, length: int, warn: float, bad: float) -> Text:
        shown = "   ?" if value is None else f"{value:3.0f}%"
        share = (value or 0.0) / 100
        return Text.assemble(
            f"{name:<5}", self.bar(share, length, _worse(value or 0.0, warn, bad) or "green"), f" {shown}"
        )

    def bar(self, fraction: float, length: int, style: str) -> Text:
        halves = round(max(0.0, min(1.0, fraction)) * length * 2)
        full, half = divmod(halves, 2)
        done = self.glyphs.full * full + self.glyphs.end * half
        return Text.assemble((done, style), (self.glyphs.empty * (length - len(done)), "dim"))

    def spark(self, values: Sequence[float]) -> str:
        """A curve in one line; nothing for less than two values."""
        if len(values) < 2:
            return ""
        low, high = min(values), max(values)
        steps = len(self.glyphs.spark) - 1
        scale = steps / (high - low) if high > low else 0.0
        return "".join(self.glyphs.spark[round((value - low) * scale)] for value in values)

    def packed(self, words: Iterable[str], indent: int) -> list[str]:
        """Join words by commas into as few lines as hold them."""
        lines = [""]
        for word in map(printable, words):
            joined = f"{lines[-1]}, {word}" if lines[-1] else word
            if len(joined) <= self.width - indent or not lines[-1]:
                lines[-1] = joined
            else:
                lines.append(word)
        return [line for line in lines if line]


def _worse(value: float, warn: float, bad: float) -> str:
    return "red" if value >= bad else "yellow" if value >= warn else ""
