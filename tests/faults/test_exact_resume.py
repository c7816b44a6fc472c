"""Training processes killed at every kind of moment: the models are, bit by bit, those of one left alone.

``CAN_RETRAIN_TEST_KILLS`` sets how often the random killer strikes, ``CAN_RETRAIN_TEST_SEED`` when.
"""

import os
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from core.errors import TrainingProcessError
from core.events.catalogue import EpochFinished, Fact, TrainingResumed
from core.resources.process import TrainingProcess
from core.training.job import PhaseJob
from tests.resume_helpers import MODELS, NUM_STEPS, TIMEOUT_S, Alone, run_phase, sha256
from tests.resume_targets import Moment
from tests.training_helpers import Recorder, losses

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1800)]  # each attempt loads torch
NUM_KILLS = int(os.environ.get("CAN_RETRAIN_TEST_KILLS", "6"))
SEED = int(os.environ.get("CAN_RETRAIN_TEST_SEED", random.randrange(2**32)))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    return Alone(tmp_path_factory.mktemp("alone"))


def moments(model: str) -> Iterator[tuple[Moment, tuple[int, int] | None]]:
    """When to die, and where the next attempt goes on if there is a checkpoint after every step."""
    yield Moment(model, "step", epoch=0, num_steps=1), None
    yield Moment(model, "vouching", epoch=0, num_steps=2), (0, 1)
    yield Moment(model, "step", epoch=1, num_steps=NUM_STEPS), (1, NUM_STEPS - 1)
    yield Moment(model, "validation", epoch=1), (1, NUM_STEPS)


@dataclass(frozen=True)
class Killed:
    """A phase whose process was killed at every moment of each of its models, and then left alone.

    Attributes:
        attempts: By model.
        last: The attempt that came through.
        checkpoints_dir: Where its checkpoints are.
    """

    attempts: dict[str, list[Recorder]]
    last: Recorder
    checkpoints_dir: Path


def kill_at_every_moment(alone: Alone, phase: str, folder: Path) -> Killed:
    job = alone.job(phase, folder, checkpoint_interval_s=0.0)
    with TrainingProcess(phase, folder) as process:
        attempts = {
            model: [run_phase(process, job, moment) for moment, _ in moments(model)]
            for model in MODELS[phase]
        }
        return Killed(attempts, run_phase(process, job), folder)


@pytest.fixture(scope="module")
def killed(alone: Alone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Killed]:
    """Every phase, side by side: most of an attempt is the start of its process."""
    folder = tmp_path_factory.mktemp("killed")
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda phase: kill_at_every_moment(alone, phase, folder / phase), MODELS)
        return dict(zip(MODELS, found, strict=True))


@pytest.mark.parametrize("phase", MODELS)
def test_a_phase_killed_at_every_kind_of_moment_saves_the_same_bits(
    alone: Alone, killed: dict[str, Killed], phase: str
) -> None:
    attempts = [attempt for model in MODELS[phase] for attempt in killed[phase].attempts[model]]
    assert sha256(killed[phase].last) == sha256(alone.said[phase])
    assert losses(*attempts, killed[phase].last) == losses(alone.said[phase])
    assert not list(killed[phase].checkpoints_dir.rglob("*.tmp"))


@pytest.mark.parametrize("model", [model for both in MODELS.values() for model in both])
def test_a_killed_training_goes_on_at_the_very_step(killed: dict[str, Killed], model: str) -> None:
    attempts = next(phase.attempts[model] for phase in killed.values() if model in phase.attempts)
    found = [
        [(f.epoch, f.num_steps) for f in attempt.of(TrainingResumed) if f.model == model]
        for attempt in attempts
    ]
    goes_on_at = [None, *(position for _, position in moments(model))]
    assert found == [[position] if position else [] for position in goes_on_at[:-1]]


@pytest.mark.parametrize("phase", MODELS)
def test_a_finished_model_is_not_trained_again_when_the_next_one_is_killed(
    killed: dict[str, Killed], phase: str
) -> None:
    finished, training = MODELS[phase]
    assert all(
        fact.model != finished
        for attempt in killed[phase].attempts[training][1:]
        for fact in attempt.of(EpochFinished)
    )


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="CPUs cannot be taken away here")
def test_a_training_resumed_with_fewer_cpus_saves_the_same_bits(alone: Alone, tmp_path: Path) -> None:
    whole, cut = (
        alone.job("teacher", tmp_path / name, checkpoint_interval_s=0.0, num_threads=2)
        for name in ("whole", "cut")
    )
    whole, cut = (replace(job, models_dir=tmp_path) for job in (whole, cut))
    with TrainingProcess("cpus", tmp_path) as process:
        expected = run_phase(process, whole)
        run_phase(process, cut, Moment("teacher_vgae", "step", epoch=1, num_steps=3))
        found = Recorder()
        process.run("tests.resume_targets:train_on_one_cpu", cut, on_fact=found, timeout_s=TIMEOUT_S)
    assert found.of(TrainingResumed)
    assert sha256(found) == sha256(expected) != sha256(alone.said["teacher"])


class Killer:
    """Listens to a training process and kills it some time after some fact."""

    def __init__(self, process: TrainingProcess, num_facts: int, delay_s: float) -> None:
        self.process, self.num_facts = process, num_facts
        self.recorder = Recorder()
        self._timer = threading.Timer(delay_s, self._strike)

    def __call__(self, fact: Fact) -> None:
        self.recorder(fact)
        if len(self.recorder.facts) == self.num_facts:
            self._timer.start()

    def _strike(self) -> None:
        if pid := self.process.pid:
            os.kill(pid, signal.SIGKILL)

    def rest(self) -> None:
        self._timer.cancel()
        if self._timer.ident:
            self._timer.join()


def was_killed(process: TrainingProcess, job: PhaseJob, killer: Killer) -> bool:
    """Run a phase; whether the killer was quicker."""
    try:
        process.run("tests.resume_targets:train", job, None, on_fact=killer, timeout_s=TIMEOUT_S)
    except TrainingProcessError as error:
        if error.kind != "killed":
            raise
        return True
    finally:
        killer.rest()
    return False


def finish_phase(
    alone: Alone, phase: str, folder: Path, rng: random.Random, most_kills: int
) -> list[Recorder]:
    """Attempts of a phase until one is left alone or escapes."""
    attempts: list[Recorder] = []
    with TrainingProcess("random", folder) as process:
        while True:
            # The interval is no part of what a checkpoint belongs to: it may change from attempt to attempt.
            job = alone.job(phase, folder, checkpoint_interval_s=rng.choice([0.0, 0.02, 10.0]))
            num_facts = rng.randint(1, 20) if len(attempts) < most_kills else 0
            killer = Killer(process, num_facts, delay_s=rng.uniform(0.0, 0.03))
            killed = was_killed(process, job, killer)
            attempts.append(killer.recorder)
            if not killed:
                return attempts


def finish_chains(alone: Alone, folder: Path, seed: int, num_kills: int) -> None:
    """Whole chains, one after another, until there were enough kills."""
    rng, num_chains = random.Random(seed), 0
    while num_kills > 0:
        num_chains += 1
        for phase in MODELS:
            attempts = finish_phase(alone, phase, folder / str(num_chains), rng, num_kills)
            num_kills -= len(attempts) - 1
            hint = f"CAN_RETRAIN_TEST_SEED={SEED}: {seed}, chain {num_chains}, {phase}"
            assert sha256(attempts[-1]) == sha256(alone.said[phase]), hint
            assert losses(*attempts) == losses(alone.said[phase]), hint


@pytest.mark.timeout(1800 + 60 * NUM_KILLS)
def test_chains_killed_at_random_moments_save_the_same_bits(alone: Alone, tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        chains = [
            pool.submit(finish_chains, alone, tmp_path / str(seed), seed, NUM_KILLS // 2)
            for seed in (SEED, SEED + 1)
        ]
        for chain in chains:
            chain.result()
