"""The course of training: epochs, threads, sampling, and where to begin without any history."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from core.analytics.advice.evidence import Advice, Evidence, Finding, models_of, point, rests_on
from core.analytics.advice.measures import BEST_VAL_LOSS, TRAINED_BY_EPOCHS
from core.analytics.advice.throughput import BUSY_PERCENT
from core.analytics.metrics import format_number
from core.analytics.observations import ModelRun
from core.analytics.results import ModelBottleneck
from core.resources.profiles import profile_for

MIN_SAMPLES, MAX_SAMPLES = 30, 50_000
EPOCHS = "training.epochs"
_MOST_BARS = 6


def epochs(evidence: Evidence) -> Iterator[Finding]:
    """More of them where models were still learning, fewer where all stopped early."""
    training = evidence.settings.training
    records = evidence.alike(EPOCHS, "training.patience", "training.batch_size", "training.lr")
    models = [
        (f"{key[0]} {name}", evidence.weight(record), model)
        for record in records
        for key, _, name, model in models_of(record)
        if key[1] in TRAINED_BY_EPOCHS
    ]
    if not models:
        return
    unfinished = [each for each in models if _best_in_last(each[2], training.epochs)]
    based_on = rests_on(records, len(models), "training")
    confidence = evidence.confidence(records, EPOCHS)
    if sum(weight for _, weight, _ in unfinished) * 2 >= sum(weight for _, weight, _ in models):
        more = -(-training.epochs * 3 // 2)
        names = list(dict.fromkeys(name for name, _, _ in unfinished))
        loss = statistics.fmean(min(model.losses.values()) for *_, model in unfinished)
        drop = statistics.fmean(_last_drop(model) for *_, model in unfinished)
        yield Advice(
            setting=EPOCHS,
            value=more,
            before=training.epochs,
            reason=f"{len(unfinished)} of {len(models)} models were best in their last epoch "
            f"({_shortened(names)}): {more} epochs instead of {training.epochs}.",
            rests_on=based_on,
            num_observations=len(models),
            confidence=confidence,
            metric=BEST_VAL_LOSS,
            current=loss,
            expected=loss - drop,
            low=loss - drop * (more - training.epochs),
            high=loss,
            measured=_losses([model for *_, model in unfinished]),
            measured_as="Mean validation loss by epoch",
        )
        return
    longest = max(max(model.epochs) + 1 for *_, model in models)
    fewer = longest + training.patience
    if fewer < training.epochs:
        yield Advice(
            setting=EPOCHS,
            value=fewer,
            before=training.epochs,
            reason=f"Early stopping ended every model after {longest} of {training.epochs} epochs or sooner: "
            f"at most {fewer} epochs.",
            rests_on=based_on,
            num_observations=len(models),
            confidence=confidence,
            measured=_epochs_run(models),
            measured_as=f"Epochs until early stopping, of {training.epochs}",
            measured_of=training.epochs,
        )


def threads(evidence: Evidence) -> Iterator[Finding]:
    """All cores where some had nothing to do, or more threads than cores were asked for."""
    num, machine = evidence.settings.training.num_threads, evidence.plan.machine
    cores = int(machine.get("num_cores") or machine["num_cpus"])
    busy = evidence.telemetry.cpu_percent
    idle = not evidence.on_gpu and 0 < num < cores and busy is not None and busy < BUSY_PERCENT
    if num <= cores and not idle:
        return
    found = f"num_threads {num} is more than the {cores} cores there are"
    if idle:
        found = f"{num} of {cores} cores trained and the machine was used to {busy:.0f} %"
    yield _from_samples(evidence, "training.num_threads", 0, num, f"{found}: all of them (0).")


def sampling(evidence: Evidence) -> Iterator[Finding]:
    """As many resource samples as one can use."""
    telemetry, interval_s = evidence.telemetry, evidence.settings.resources.sample_interval_s
    seen = f"{telemetry.num_samples} resource samples in {telemetry.duration_s:.0f} s"
    setting = "resources.sample_interval_s"
    if 0 < telemetry.num_samples < MIN_SAMPLES and telemetry.duration_s > 0:
        shorter = max(0.05, round(telemetry.duration_s / (2 * MIN_SAMPLES), 2))
        if shorter < interval_s:
            reason = f"{seen} are too few to see anything: one every {shorter} s."
            yield _from_samples(evidence, setting, shorter, interval_s, reason)
    if telemetry.num_samples > MAX_SAMPLES:
        longer = round(2 * telemetry.duration_s / MAX_SAMPLES, 1)
        if longer > interval_s:
            reason = f"{seen} are more than anyone needs: one every {longer} s."
            yield _from_samples(evidence, setting, longer, interval_s, reason)


def bottlenecks(evidence: Evidence) -> Iterator[Finding]:
    """What kept models from being trained faster, and what would change that: each once."""
    causes: dict[tuple[str, str], list[ModelBottleneck]] = defaultdict(list)
    for found in evidence.bottlenecks:
        if found.change and (found.bottleneck != "data_wait" or evidence.waits):
            causes[found.bottleneck, found.cause].append(found)
    for (bottleneck, _), models in causes.items():
        names = _shortened([f"{found.dataset} {found.model}" for found in models])
        yield f"{bottleneck.replace('_', ' ').capitalize()} in {names}: {models[0].reason} {models[0].change}"


def profile(evidence: Evidence) -> Iterator[Finding]:
    """The published starting points of the device."""
    gpu = evidence.plan.machine["gpus"][0] if evidence.on_gpu else None
    found = (
        profile_for(gpu["name"], gpu["vram_total_mib"], gpu["compute_capability"])
        if gpu
        else profile_for(None, 0.0)
    )
    settings = evidence.settings
    yield (
        f"No phase has finished training on {evidence.plan.device_name} yet: settings begin with the "
        f"published figures of the {found.label}, until a plan has measured its own."
    )
    starts = (
        ("models.preset", found.preset, settings.models.preset),
        ("training.batch_size", found.batch_size, settings.training.batch_size),
        ("training.mixed_precision", found.mixed_precision, settings.training.mixed_precision),
        ("training.dqn.replay_capacity", found.replay_capacity, settings.training.dqn.replay_capacity),
    )
    for setting, value, before in starts:
        yield Advice(
            setting=setting,
            value=value,
            before=before,
            reason=f"{setting} {str(value).lower()} to begin with.",
            rests_on="published figures",
            num_observations=0,
            confidence=evidence.confidence([], setting),
        )


def _from_samples(evidence: Evidence, setting: str, value: float, before: float, reason: str) -> Advice:
    """Advice on a setting that no metric of training shows."""
    num = evidence.telemetry.num_samples
    return Advice(
        setting=setting,
        value=value,
        before=before,
        reason=reason,
        rests_on=rests_on([evidence.plan], num, "resource sample"),
        num_observations=num,
        confidence=evidence.confidence([evidence.plan], setting),
    )


def _losses(models: Sequence[ModelRun]) -> list[dict[str, Any]]:
    """Mean validation loss of the last epochs that all of them finished."""
    shared = sorted(set.intersection(*(set(model.losses) for model in models)))[-_MOST_BARS:]
    means = {epoch: statistics.fmean(model.losses[epoch] for model in models) for epoch in shared}
    return [point(f"epoch {epoch}", loss, format_number(loss)) for epoch, loss in means.items()]


def _epochs_run(models: Sequence[tuple[str, float, ModelRun]]) -> list[dict[str, Any]]:
    """The longest training of each model."""
    longest: dict[str, int] = {}
    for name, _, model in models:
        longest[name] = max(longest.get(name, 0), max(model.epochs) + 1)
    most = sorted(longest.items(), key=lambda item: -item[1])[:_MOST_BARS]
    return [point(name, num, str(num)) for name, num in most]


def _best_in_last(model: ModelRun, num_epochs: int) -> bool:
    losses = model.losses
    return bool(losses) and max(losses) == num_epochs - 1 == min(losses, key=lambda epoch: losses[epoch])


def _last_drop(model: ModelRun) -> float:
    """By how much the last epoch lowered the loss; 0 after a single one."""
    before, last = ([0.0, 0.0, *model.losses.values()])[-2:]
    return max(0.0, before - last)


def _shortened(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
