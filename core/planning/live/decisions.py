"""What was decided or happened in a plan, in a few plain words: the log has the figures."""

from core.analytics.advice.judging import sentence
from core.events.catalogue import (
    CaptureRefused,
    ChainFinished,
    ChainStopped,
    CheckpointRefused,
    Fact,
    GraphsBuilt,
    GraphsLost,
    PhaseFailed,
    PhaseFinished,
    PhaseSkipped,
    PhaseStarted,
    PlanFinished,
    PlanResumed,
    RowsQuarantined,
    SharedCapturesFound,
    TrainingResumed,
)
from core.events.resource_facts import (
    ConfigRecommended,
    InputAdjusted,
    PackLimitChanged,
    PackLimitChosen,
    PhaseAdmitted,
    RecommendationJudged,
    StorePlaced,
)
from core.resources.failures import OOM_KINDS
from core.training.packs import PackLimit

Sentence = tuple[str, str, str]
"""Tone (``info``, ``good``, ``warn`` or ``bad``), where, and the text."""

KIND_WORDS = {
    "cuda_oom": "the GPU ran out of memory",
    "fragmentation": "GPU memory is too scattered",
    "host_oom": "the machine ran out of memory",
    "hang": "it hung",
    "cuda_error": "the GPU failed",
    "killed": "its process was killed",
    "data_error": "its data cannot be used",
    "bug": "an error in the software",
}
_BOUND_WORDS = {
    "step": "a whole step fits",
    "setting": "as the settings say",
    "memory": "memory binds it",
    "history": "learned from earlier plans",
}
_INPUT_WORDS = {
    "starved": "the GPU waits while RAM is free",
    "slow_input": "loading takes longer than training",
    "ram_pressure": "RAM runs short",
    "stay_fed": "so that the GPU stays fed",
    "no_gain": "the last raise brought nothing",
}
_ROOM_WORDS = {"room": "there is room again", "allocator_retries": "memory is tight"}
_PLACES = {
    "resident": "in memory where it computes",
    "pinned": "from RAM",
    "mapped": "from the disk",
}


def sentences(fact: Fact) -> list[Sentence]:
    """What a fact says to people; nothing where it is not worth a line."""
    for about in (_about_plan, _about_data, _about_training):
        if said := about(fact):
            return [said]
    match fact:
        case PhaseAdmitted():
            waited = f" after {duration(fact.waited_s)}" if fact.waited_s >= 1 else ""
            return [("info", f"{fact.dataset} {fact.phase}", f"gets {granted(fact)}{waited}")]
        case PhaseStarted():
            again = [f"attempt {fact.attempt} begins"] * (fact.attempt > 1)
            tone, where = "warn" if again else "info", f"{fact.dataset} {fact.phase}"
            return [(tone, where, text) for text in again + fact.choices]
        case ConfigRecommended():
            changes = [
                f"{item['setting']} {item['before']} → {item['value']}"
                for item in fact.advice
                if item["value"] != item["before"]
            ]
            return [("info", "", f"advice for next time: {', '.join(changes) or 'change nothing'}")]
    return []


def granted(fact: PhaseAdmitted) -> str:
    """What a phase runs within: ``12288 MiB of NVIDIA H100``, ``4 cores of ...``."""
    return f"{fact.slots} {'MiB' if fact.gpu_uuid else 'cores'} of {fact.device_name}"


def stopped_early(num_done: int, num_epochs: int, patience: int) -> str:
    """That a model needed fewer epochs than it was granted."""
    return (
        f"stopped early after {num_done} of {num_epochs} epochs: {patience} in a row brought no better "
        "validation loss"
    )


def duration(seconds: float) -> str:
    """A time for people: ``4.8 s``, ``48 s``, ``3 min 20 s``, ``12 min``, ``2 h 05 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    if round(seconds) < 600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02} s" if rest else f"{minutes} min"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def _about_plan(fact: Fact) -> Sentence | None:
    said: Sentence | None = None
    match fact:
        case PlanResumed():
            said = "info", "", f"taken up again with {len(fact.remaining)} phases to do"
        case PlanFinished():
            said = "good" if fact.status == "completed" else "bad", "", f"the plan has {fact.status}"
        case ChainFinished(status="failed"):
            said = "bad", fact.dataset, "could not be finished; the other datasets go on"
        case ChainStopped():
            said = "warn", fact.dataset, f"broken off: {fact.reason}"
        case PhaseFinished():
            said = "good", f"{fact.dataset} {fact.phase}", f"done in {duration(fact.duration_s)}"
        case PhaseFailed():
            why = KIND_WORDS.get(fact.kind, fact.kind)
            first = next(iter(fact.message.splitlines()), "")
            text = f"attempt {fact.attempt} failed: {why} ({first})"
            said = "bad", f"{fact.dataset} {fact.phase}", text
        case PhaseSkipped():
            said = "warn", f"{fact.dataset} {fact.phase}", f"not reached: {fact.reason}"
        case RecommendationJudged():
            said = "good" if fact.helped else "info", "", sentence(fact)
    return said


def _about_data(fact: Fact) -> Sentence | None:
    said: Sentence | None = None
    match fact:
        case GraphsBuilt():
            how = "were there already" if fact.cached else "are built"
            said = "info", fact.dataset, f"{fact.num_graphs} graphs of {fact.num_frames} frames {how}"
        case GraphsLost():
            said = "warn", fact.dataset, "its graphs are gone and are built again"
        case RowsQuarantined():
            text = f"{fact.num_rows} rows of {fact.path} are put aside as not readable"
            said = "warn", fact.dataset, text
        case CaptureRefused():
            said = "warn", fact.dataset, f"capture {fact.path} is left out: {fact.reason}"
        case SharedCapturesFound():
            said = "warn", fact.dataset, f"{len(fact.captures)} captures serve both training and test"
    return said


def _about_training(fact: Fact) -> Sentence | None:
    said: Sentence | None = None
    match fact:
        case CheckpointRefused():
            said = "warn", f"{fact.dataset} {fact.model}", f"a checkpoint is left out: {fact.reason}"
        case TrainingResumed():
            text = f"goes on from a checkpoint in epoch {fact.epoch + 1}"
            said = "good", f"{fact.dataset} {fact.model}", text
        case StorePlaced():
            place = _PLACES.get(fact.placement, fact.placement)
            said = "info", f"{fact.dataset} {fact.phase}", f"reads its graphs {place}: {fact.reason}"
        case PackLimitChosen():
            text = f"packs hold at most {PackLimit(**fact.limit)}: {_BOUND_WORDS.get(fact.binds, fact.binds)}"
            said = "info", f"{fact.dataset} {fact.model}", text
        case PackLimitChanged():
            why = KIND_WORDS.get(fact.reason, _ROOM_WORDS.get(fact.reason, fact.reason))
            again = "; the same step was done again" if fact.reason in OOM_KINDS else ""
            text = f"{why}: packs now hold at most {PackLimit(**fact.after)}{again}"
            said = "warn" if again else "info", f"{fact.dataset} {fact.model}", text
        case InputAdjusted():
            text = (
                f"workers {fact.num_workers_before} → {fact.num_workers}, prefetch "
                f"{fact.prefetch_factor_before} → {fact.prefetch_factor}: "
                f"{_INPUT_WORDS.get(fact.reason, fact.reason)}"
            )
            said = "info", f"{fact.dataset} {fact.model}", text
    return said
