"""What keeps training from being faster: one verdict from measured numbers, and what would change it.

NVML's GPU utilisation says in what share of time *any* kernel ran, so a GPU at 100 % may be doing next to
nothing. It is shown among the numbers and decides nothing; what decides is how much of the GPU works (its
multiprocessors, else its power draw), what the training processes do meanwhile, and who waits for whom.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, TypeAlias

from core.resources.readings import MIB

Bottleneck: TypeAlias = Literal[
    "data_wait", "launch_bound", "compute_bound", "memory_bound", "idle", "unknown"
]

_SETTING = re.compile(r"\b(?:dataset|models|resources|training)\.[a-z_]+")

WAITING = 0.15
"""Share of time without a pack from which training counts as waiting for data."""
BUSY_GPU = 0.60
"""Share of the GPU at work, or of its power limit, from which it counts as busy."""
FED_GPU = 0.85
"""Share of the multiprocessors at work from which waiting for data, which overlaps with it, costs nothing."""
IDLE_GPU = 0.15
"""Share of the GPU at work, or of its power limit (a GPU at rest draws some), up to which it is idle."""
BUSY_BANDWIDTH = 0.70
"""Share of the memory bandwidth from which it counts as the limit."""
BUSY_CORE = 0.80
"""CPUs kept busy by a training that is held up by its one Python thread."""
IDLE_CORE = 0.20
"""CPUs kept busy up to which training does nothing."""
BUSY_CPUS = 0.60
"""Share of the CPUs training may use from which it counts as using them."""
BUSY_WORKERS = 0.60
"""Share of their time that worker threads gather packs from which they are too few."""
FULL_MACHINE = 0.90
"""Share of all CPUs from which there is none left."""
THROTTLED = 0.20
"""Share of time at lowered clocks that is worth a word."""
SWAPPING_BYTES_PER_S = MIB
"""Traffic with the swap beyond which memory is too small; a few pages a second are housekeeping."""
PAGING_PER_S = 100.0
"""Major faults beyond which memory is too small for what is used of it."""


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What was measured while one model trained; None is what was not. Shares are from 0 to 1.

    Attributes:
        device: Where it trained, ``cuda`` or ``cpu``.
        precision: Number format, ``fp32`` or a shorter one.
        duration_s: Time of its epochs.
        data_wait_share: Of that time, in which training stood still for its next pack.
        data_load_share: Of the time of its worker threads, in which they gathered packs; of the training
            thread's where it has none.
        num_workers: Threads that gathered packs ahead, at the end.
        prefetch_factor: Packs held ready per thread, at the end.
        placement: Where graphs were read from: ``resident``, ``pinned`` or ``mapped``.
        num_packs_per_step: Forward/backward passes per optimizer step.
        pack_ms: Time per pack.
        pack_limit_binds: What keeps packs from being larger: ``step``, ``setting``, ``memory``, ``history``.
        num_memory_events: Times that a pack was made smaller for lack of memory, or memory was tight.
        gpu_utilization: NVML's share of time in which any kernel ran; shown, never decisive.
        sm_activity: Mean share of the GPU's multiprocessors that had work.
        power_share: Power draw as a share of its limit; None for a slice of a GPU.
        dram_activity: Share of the memory bandwidth used.
        vram_busy_share: Share of time in which VRAM was read or written.
        throttled_thermal: Share of samples with clocks lowered for the temperature's sake.
        throttled_power: Share of samples with clocks held down by the power limit.
        num_cpus: CPUs that may be used.
        num_cores: Physical cores among them: more threads than that slow training down.
        num_threads: CPU threads of torch.
        training_cpus: CPUs that the training processes kept busy.
        machine_cpu_share: Use of all of the machine's CPUs.
        ram_share: RAM in use.
        swap_bytes_per_s: Traffic with the swap, both ways.
        major_faults_per_s: Times that training waited for a page of memory from a disk.
    """

    device: str
    precision: str | None = None
    duration_s: float = 0.0
    data_wait_share: float | None = None
    data_load_share: float | None = None
    num_workers: int | None = None
    prefetch_factor: int | None = None
    placement: str | None = None
    num_packs_per_step: float | None = None
    pack_ms: float | None = None
    pack_limit_binds: str | None = None
    num_memory_events: int = 0
    gpu_utilization: float | None = None
    sm_activity: float | None = None
    power_share: float | None = None
    dram_activity: float | None = None
    vram_busy_share: float | None = None
    throttled_thermal: float | None = None
    throttled_power: float | None = None
    num_cpus: int | None = None
    num_cores: int | None = None
    num_threads: int | None = None
    training_cpus: float | None = None
    machine_cpu_share: float | None = None
    ram_share: float | None = None
    swap_bytes_per_s: float | None = None
    major_faults_per_s: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What holds training up, and what to do.

    Attributes:
        bottleneck: The verdict.
        cause: What exactly, in a word.
        reason: The measurements that led to it, in a sentence.
        change: What to change, naming settings; empty where nothing is known to help.
        numbers: What was measured, by its name in ``Signals``.
        missing: What would have had to be measured; only for ``unknown``.
    """

    bottleneck: Bottleneck
    cause: str
    reason: str
    change: str = ""
    numbers: Mapping[str, float | int | str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings that ``change`` names."""
        return tuple(_SETTING.findall(self.change))


def judge(signals: Signals) -> Verdict:
    """Find the bottleneck: the first rule that applies, root causes before what follows from them.

    Too little RAM makes everything wait, so it comes first; a GPU that waits for data is not slow itself; and
    only what is neither waiting nor short of memory is a question of computing.
    """
    rules = _GPU_RULES if signals.device == "cuda" else _CPU_RULES
    found = next(filter(None, (rule(signals) for rule in rules)), None) or _unknown(signals)
    return replace(found, numbers={k: v for k, v in asdict(signals).items() if v is not None})


def _short_of_ram(s: Signals) -> Verdict | None:
    swapped, faults = s.swap_bytes_per_s or 0.0, s.major_faults_per_s or 0.0
    if swapped >= SWAPPING_BYTES_PER_S:
        cause, measured = "swapping", f"{swapped / MIB:.0f} MiB/s went through the swap"
    elif faults >= PAGING_PER_S and s.placement != "mapped":
        cause, measured = "paging", f"training waited {faults:.0f} times a second for a page from the disk"
    else:
        return None
    full = "" if s.ram_share is None else f", with {s.ram_share:.0%} of RAM in use"
    return Verdict(
        "memory_bound",
        cause,
        f"RAM is too small for what runs: {measured}{full}.",
        "Hold less in RAM: dataset.placement: mapped, fewer dataset.num_workers, a lower "
        "dataset.prefetch_factor, a training.micro_batch_size; or end what else runs.",
    )


def _waits_for_data(s: Signals) -> Verdict | None:
    if s.data_wait_share is None or s.data_wait_share < WAITING or (s.sm_activity or 0.0) >= FED_GPU:
        return None
    waited = f"Training stood still for its next pack in {s.data_wait_share:.0%} of the time"
    if s.placement == "mapped":
        return Verdict(
            "data_wait",
            "disk",
            f"{waited}: graphs are read from the disk.",
            "Hold them in memory (dataset.placement: pinned, or resident), or on a faster disk.",
        )
    if s.num_workers == 0:
        return Verdict(
            "data_wait",
            "no_workers",
            f"{waited}: it gathers packs itself.",
            "Have worker threads gather them ahead: dataset.num_workers.",
        )
    if s.machine_cpu_share is not None and s.machine_cpu_share >= FULL_MACHINE:
        return Verdict(
            "data_wait",
            "cpus_full",
            f"{waited}, and {s.machine_cpu_share:.0%} of the CPUs are busy: more workers would not help.",
            "Take the gathering off the CPUs (dataset.placement: resident), or end what else runs on them.",
        )
    if s.data_load_share is not None and s.data_load_share >= BUSY_WORKERS:
        return Verdict(
            "data_wait",
            "slow_workers",
            f"{waited}, and its workers gathered packs in {s.data_load_share:.0%} of it.",
            "More workers: dataset.num_workers, up to dataset.max_workers.",
        )
    return Verdict(
        "data_wait",
        "uneven",
        f"{waited}, though its workers were not always busy: packs come in bursts.",
        "Hold more packs ready: dataset.prefetch_factor; if that is not enough, dataset.num_workers.",
    )


def _short_of_vram(s: Signals) -> Verdict | None:
    activity = _activity(s)
    packs = s.num_packs_per_step or 0.0
    if s.pack_limit_binds != "memory" and not s.num_memory_events:
        return None
    if packs <= 1.0 or activity is None or activity >= BUSY_GPU:
        return None
    return Verdict(
        "memory_bound",
        "small_packs",
        f"VRAM holds so little of a step that it takes {packs:.1f} packs, too small to fill the GPU "
        f"({_activity_text(s)}); memory was short {s.num_memory_events} times.",
        "Leave more VRAM to packs: training.mixed_precision, a higher training.target_memory_usage, "
        "dataset.placement: pinned, a smaller models.preset; or end what else uses the GPU.",
    )


def _short_of_bandwidth(s: Signals) -> Verdict | None:
    used = s.dram_activity
    if used is None and (s.power_share or 0.0) >= BUSY_GPU:
        used = s.vram_busy_share  # time in which VRAM was touched at all: says nothing of a GPU at rest
    if used is None or used < BUSY_BANDWIDTH:
        return None
    return Verdict(
        "memory_bound",
        "bandwidth",
        f"The GPU moves data rather than computes: its memory was busy at {used:.0%} ({_activity_text(s)}).",
        "Move fewer bytes: training.mixed_precision, or a smaller models.preset.",
    )


def _computes_on_gpu(s: Signals) -> Verdict | None:
    activity = _activity(s)
    if (s.throttled_thermal or 0.0) >= THROTTLED and (s.sm_activity is None or s.sm_activity >= BUSY_GPU):
        # Held back for its heat it draws less power than it would, and it was work that made it hot.
        return Verdict(
            "compute_bound",
            "thermal",
            f"The GPU is at work ({_activity_text(s)}) but was slowed down for its temperature in "
            f"{s.throttled_thermal:.0%} of the samples.",
            "Cool it (airflow, dust, fan curve): no setting helps.",
        )
    if activity is None or activity < BUSY_GPU:
        return None
    capped = s.throttled_power is not None and s.throttled_power >= THROTTLED
    held = (
        f"; its power limit held the clocks down in {s.throttled_power:.0%} of the samples" if capped else ""
    )
    shorter = "training.mixed_precision, " if s.precision == "fp32" else ""
    return Verdict(
        "compute_bound",
        "power_limit" if capped else "busy",
        f"The GPU is at work ({_activity_text(s)}){held}.",
        f"This is what it can do. Less work: {shorter}a smaller models.preset, fewer training.epochs.",
    )


def _launches(s: Signals) -> Verdict | None:
    activity, cpus = _activity(s), s.training_cpus
    if activity is None or activity >= BUSY_GPU or cpus is None or cpus < BUSY_CORE:
        return None
    return _one_busy_thread(s, f"{cpus:.1f} CPUs were busy while the GPU was not ({_activity_text(s)})")


def _one_busy_thread(s: Signals, measured: str) -> Verdict:
    small = "" if s.pack_ms is None else f", {s.pack_ms:.1f} ms per pack"
    if (s.num_packs_per_step or 0.0) > 1.0 and s.pack_limit_binds in (None, "setting"):
        change = "Make packs larger, which changes no result: training.micro_batch_size: 0."
    else:
        change = (
            "Make steps larger, which changes how models learn: a higher training.batch_size, fewer "
            "training.min_steps_per_epoch."
        )
    return Verdict(
        "launch_bound",
        "small_packs",
        f"Packs are too small: one thread was kept busy handing them out. {measured}{small}.",
        change,
    )


def _does_nothing(s: Signals) -> Verdict | None:
    if s.training_cpus is None or s.training_cpus > IDLE_CORE:
        return None
    if s.device == "cuda" and ((activity := _activity(s)) is None or activity > IDLE_GPU):
        return None
    return _crowded_out(s) or Verdict(
        "idle",
        "nothing_runs",
        f"Training did next to nothing: its processes kept {s.training_cpus:.2f} CPUs busy"
        f"{f', and the GPU rested ({_activity_text(s)})' if s.device == 'cuda' else ''}.",
        "Look for what it waits for: a disk that does not answer, or a hang (resources.hang_timeout_s).",
    )


def _crowded_out(s: Signals) -> Verdict | None:
    if s.machine_cpu_share is None or s.training_cpus is None or s.machine_cpu_share < FULL_MACHINE:
        return None
    return Verdict(
        "idle",
        "crowded_out",
        f"Other work uses the CPUs: {s.machine_cpu_share:.0%} of the machine's are busy, and this training "
        f"keeps {s.training_cpus:.1f} of them.",
        "End or move what else runs on this machine, the training of another dataset included.",
    )


def _computes_on_cpu(s: Signals) -> Verdict | None:
    usable = _usable_cpus(s)
    if usable is None or s.training_cpus is None or s.training_cpus < BUSY_CPUS * usable:
        return None
    cores = _num_cores(s) or usable
    if usable < BUSY_CPUS * cores:
        return Verdict(
            "compute_bound",
            "few_threads",
            f"Training keeps {s.training_cpus:.1f} of the {usable} CPUs busy that it is given, of "
            f"{cores} cores there are.",
            "Give it more: training.num_threads.",
        )
    return Verdict(
        "compute_bound",
        "busy",
        f"The CPUs are at work: training keeps {s.training_cpus:.1f} of {usable} busy.",
        "This is what they can do. Less work: a smaller models.preset, fewer training.epochs; or use a GPU.",
    )


def _crowded_out_of_cpus(s: Signals) -> Verdict | None:
    usable = _usable_cpus(s)
    return _crowded_out(s) if usable and (s.training_cpus or 0.0) < BUSY_CPUS * usable else None


def _runs_on_one_cpu(s: Signals) -> Verdict | None:
    usable, cpus = _usable_cpus(s), s.training_cpus
    if usable is None or cpus is None or not BUSY_CORE <= cpus < BUSY_CPUS * usable:
        return None
    return _one_busy_thread(s, f"{cpus:.1f} of {usable} CPUs were busy")


_GPU_RULES: tuple[Callable[[Signals], Verdict | None], ...] = (
    _short_of_ram,
    _waits_for_data,
    _short_of_vram,
    _short_of_bandwidth,
    _computes_on_gpu,
    _launches,
    _does_nothing,
)
_CPU_RULES: tuple[Callable[[Signals], Verdict | None], ...] = (
    _short_of_ram,
    _waits_for_data,
    _computes_on_cpu,
    _crowded_out_of_cpus,
    _runs_on_one_cpu,
    _does_nothing,
)


_IN_WORDS = {
    "data_wait_share": "how long training waited for packs",
    "training_cpus": "how busy training kept the CPUs",
    "sm_activity or power_share": "how busy the GPU was",
    "num_cpus": "how many CPUs there are",
}


def _unknown(s: Signals) -> Verdict:
    needed = {"data_wait_share": s.data_wait_share, "training_cpus": s.training_cpus}
    if s.device == "cuda":
        needed["sm_activity or power_share"] = _activity(s)
    else:
        needed["num_cpus"] = s.num_cpus
    missing = tuple(name for name, value in needed.items() if value is None)
    if missing:
        reason = f"Not measured: {'; '.join(_IN_WORDS[name] for name in missing)}."
        return Verdict("unknown", "not_measured", reason, missing=missing)
    work = _activity_text(s) if s.device == "cuda" else f"{_usable_cpus(s)} CPUs to be used"
    return Verdict(
        "unknown",
        "mixed",
        f"Nothing stands out: {s.data_wait_share:.0%} of the time without a pack, {s.training_cpus:.1f} CPUs "
        f"busy, {work}.",
    )


def _activity(s: Signals) -> float | None:
    """How much of the GPU works: measured, or as its power draw tells."""
    return s.power_share if s.sm_activity is None else s.sm_activity


def _activity_text(s: Signals) -> str:
    known = {
        "{:.0%} of its multiprocessors active": s.sm_activity,
        "{:.0%} of its power limit drawn": s.power_share,
        "utilisation {:.0%}": s.gpu_utilization,
    }
    return ", ".join(text.format(share) for text, share in known.items() if share is not None)


def _num_cores(s: Signals) -> int | None:
    """Threads that can compute at a time; of earlier releases' plans only the CPUs are known."""
    return s.num_cpus and min(s.num_cores or s.num_cpus, s.num_cpus)


def _usable_cpus(s: Signals) -> int | None:
    return s.num_cpus and min(s.num_threads or _num_cores(s) or s.num_cpus, s.num_cpus)
