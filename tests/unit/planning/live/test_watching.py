"""Watching a plan: what each look says, and that it reads only what is new."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.events.catalogue import EpochFinished, Fact, PhaseStarted, TrainingResumed, to_event
from core.events.event import Event
from core.events.log import EventLog
from core.planning.live.phases import pulse_of, share_read
from core.planning.live.view import LiveView, PhaseView
from core.planning.live.watching import Watch
from core.planning.shared.lock import hold
from core.resources.process_state import ProcessId, ProcessState, ProcessStatus, now
from settings.layout import Layout
from tests.sample_log import PLAN_ID, sample_events

EVENTS = sample_events()


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(Layout(tmp_path).events)


@pytest.fixture
def carried_out(tmp_path: Path) -> Iterator[None]:
    """Somebody carries out a plan."""
    with hold(tmp_path):
        yield


def append(log: EventLog, events: list[Event]) -> None:
    log.append([event._replace(position=-1) for event in events])


def until(kind: str, **payload: object) -> int:
    """How many events there are when the first of a kind has happened."""
    return 1 + next(
        place
        for place, event in enumerate(EVENTS)
        if event.type == kind and all(event.payload[name] == value for name, value in payload.items())
    )


def phase_of(view: LiveView, dataset: str, phase: str) -> PhaseView:
    return next(p for p in view.phases if (p.dataset, p.phase) == (dataset, phase))


def at(fact: Fact, seconds: float) -> Event:
    """A fact so long after the last event of the sample."""
    return to_event(PLAN_ID, fact)._replace(occurred_at=EVENTS[-1].occurred_at + timedelta(seconds=seconds))


def test_there_is_something_to_see_before_there_is_a_plan(tmp_path: Path) -> None:
    view = Watch(tmp_path / "nowhere").look()
    assert (view.plan_id, view.status, view.phases) == (None, "none", ())
    assert view.resources.ram_total_mib
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.usefixtures("carried_out")
def test_looks_follow_a_plan_to_its_end_and_nothing_done_is_undone(tmp_path: Path, log: EventLog) -> None:
    watch = Watch(tmp_path)
    reached: dict[tuple[str, str, int], float] = {}
    statuses = []
    for place in range(0, len(EVENTS), 4):
        append(log, EVENTS[place : place + 4])
        view = watch.look(EVENTS[min(place + 3, len(EVENTS) - 1)].occurred_at)
        statuses.append(view.status)
        assert 0 <= view.fraction <= 1
        assert view.eta is None or view.eta.low_s >= 0
        for phase in view.phases:
            key = (phase.dataset, phase.phase, phase.attempt)
            if phase.status in ("running", "completed"):
                assert phase.fraction >= reached.get(key, 0.0)
                reached[key] = phase.fraction
            assert (phase.fraction == 1.0) == (phase.status in ("completed", "skipped"))
    assert list(dict.fromkeys(statuses)) == ["running", "failed"]
    assert view.is_over
    assert view.elapsed_s == pytest.approx((EVENTS[-1].occurred_at - EVENTS[0].occurred_at).total_seconds())


@pytest.mark.usefixtures("carried_out")
def test_a_running_phase_says_model_epoch_curves_and_time_left(tmp_path: Path, log: EventLog) -> None:
    num = until("epoch_finished", dataset="hcrl_sa", model="teacher_gat", epoch=4)
    append(log, EVENTS[:num])
    phase = phase_of(Watch(tmp_path).look(EVENTS[num - 1].occurred_at), "hcrl_sa", "teacher")
    assert (phase.model, phase.epoch, phase.num_epochs) == ("teacher_gat", 6, 10)
    assert phase.fraction == 0.75
    vgae, gat = phase.models
    assert (vgae.is_over, vgae.epochs_done, gat.epochs) == (True, 10.0, (0, 1, 2, 3, 4))
    assert gat.train_losses[-1] == phase.train_loss
    assert phase.eta
    mean_s = (
        sum(
            event.payload["duration_s"]
            for event in EVENTS[:num]
            if event.type == "epoch_finished"
            and (event.payload["dataset"], event.payload["model"]) == ("hcrl_sa", "teacher_gat")
        )
        / 5
    )
    assert phase.eta.middle_s == pytest.approx(5 * mean_s)
    assert phase.eta.low_s < 5 * mean_s < (phase.eta.high_s or 0)


@pytest.mark.usefixtures("carried_out")
def test_phases_to_come_are_estimated_from_other_plans_and_unknown_without(
    tmp_path: Path, log: EventLog
) -> None:
    append(log, EVENTS[:3])
    first = Watch(tmp_path).look(EVENTS[2].occurred_at)
    assert first.eta
    assert first.eta.middle_s is None
    earlier = sample_events(plan_id="plan-20261101-0000-aaaa", failures=False)
    append(log, [event._replace(occurred_at=event.occurred_at - timedelta(days=1)) for event in earlier])
    view = Watch(tmp_path, PLAN_ID).look(EVENTS[2].occurred_at)
    assert view.eta
    took_s = (earlier[-1].occurred_at - earlier[0].occurred_at).total_seconds()
    assert view.eta.middle_s == pytest.approx(2 * took_s, rel=0.5)  # one dataset after the other
    assert view.eta.high_s
    assert view.eta.low_s < 2 * took_s < 2 * view.eta.high_s


def test_what_nobody_carries_out_is_interrupted_and_time_stands_still_for_it(
    tmp_path: Path, log: EventLog
) -> None:
    append(log, EVENTS[:40])
    watch = Watch(tmp_path)
    view = watch.look(EVENTS[39].occurred_at + timedelta(hours=1))
    assert view.status == "interrupted"
    assert view.elapsed_s == pytest.approx((EVENTS[39].occurred_at - EVENTS[0].occurred_at).total_seconds())
    with hold(tmp_path):
        assert watch.look(EVENTS[39].occurred_at).status == "running"


def test_decisions_are_sentences_and_the_last_error_says_whether_it_was_got_over(
    tmp_path: Path, log: EventLog
) -> None:
    append(log, EVENTS[: until("phase_finished", dataset="hcrl_sa", phase="student")])
    view = Watch(tmp_path).look()
    said = [f"{d.where}: {d.text}" for d in view.decisions]
    assert any("workers 6 → 9" in text and "GPU waits while RAM is free" in text for text in said)
    assert any("attempt 1 failed: the GPU ran out of memory" in text for text in said)
    assert any("attempt 2 begins" in text for text in said)
    append(log, EVENTS[until("phase_finished", dataset="hcrl_sa", phase="student") :])
    last = Watch(tmp_path).look().last_error
    assert last
    assert (last.where, last.kind, last.now) == ("set_01 fusion", "bug", "failed")


def test_a_model_that_stopped_early_is_said_to_have(tmp_path: Path, log: EventLog) -> None:
    append(log, EVENTS)
    texts = [d.text for d in Watch(tmp_path).look().decisions if d.where == "hcrl_sa fusion"]
    assert any(text.startswith("stopped early after 10 of 30 epochs") for text in texts)


@pytest.mark.usefixtures("carried_out")
def test_a_new_attempt_begins_where_its_checkpoint_is(tmp_path: Path, log: EventLog) -> None:
    names = {"dataset": "set_01", "phase": "fusion", "model": "fusion"}
    append(log, EVENTS[: until("phase_failed", dataset="set_01", phase="fusion")])
    started = PhaseStarted(
        dataset="set_01", phase="fusion", attempt=2, device="cuda", precision="bf16", micro_batch_size=0
    )
    append(log, [at(started, 1)])
    watch = Watch(tmp_path)
    assert phase_of(watch.look(), "set_01", "fusion").fraction == 0.0
    append(log, [at(TrainingResumed(**names, epoch=2, num_steps=0, path="c"), 2)])
    phase = phase_of(watch.look(), "set_01", "fusion")
    assert (phase.attempt, phase.epoch, phase.models[0].epochs) == (2, 3, (0, 1))
    assert phase.fraction == pytest.approx(2 / 30 / 2)


@pytest.mark.usefixtures("carried_out")
def test_the_heartbeat_moves_progress_within_an_epoch(tmp_path: Path, log: EventLog) -> None:
    num = until("epoch_finished", dataset="hcrl_sa", model="teacher_vgae", epoch=0)
    append(log, EVENTS[:num])
    watch, logs = Watch(tmp_path), Layout(tmp_path).process_logs
    moment = EVENTS[num - 1].occurred_at
    before = phase_of(watch.look(moment), "hcrl_sa", "teacher")
    logs.mkdir()
    beat(logs, 25)
    seen = phase_of(watch.look(moment + timedelta(seconds=10)), "hcrl_sa", "teacher")
    assert (seen.step, seen.num_steps, seen.train_loss) == (25, 50, 0.25)
    assert before.fraction < seen.fraction == pytest.approx(1.5 / 20)
    beat(logs, 5)  # an older sign undoes nothing
    assert (
        phase_of(watch.look(moment + timedelta(seconds=11)), "hcrl_sa", "teacher").fraction == seen.fraction
    )
    (process,) = watch.look().processes
    assert (process.dataset, process.state) == ("hcrl_sa", "working")


@pytest.mark.usefixtures("carried_out")
def test_the_first_epoch_has_a_pace_as_soon_as_it_was_watched_for_a_while(
    tmp_path: Path, log: EventLog
) -> None:
    num = until("phase_started", dataset="hcrl_sa", phase="teacher")
    append(log, EVENTS[:num])
    watch, logs, moment = Watch(tmp_path), Layout(tmp_path).process_logs, EVENTS[num - 1].occurred_at
    logs.mkdir()
    beat(logs, 5, epoch=0, model="teacher_gat")
    first = phase_of(watch.look(moment + timedelta(seconds=10)), "hcrl_sa", "teacher").eta
    assert first
    assert first.middle_s is None
    beat(logs, 30, epoch=0, model="teacher_gat")
    eta = phase_of(watch.look(moment + timedelta(seconds=20)), "hcrl_sa", "teacher").eta
    assert eta
    assert eta.middle_s == pytest.approx(9.4 * 20.0)  # half an epoch took 10 s


def beat(folder: Path, step: int, epoch: int = 1, model: str = "teacher_vgae") -> None:
    """A state file of a process that trains: this one."""
    own = ProcessId.of(os.getpid())
    figures = {"epoch": epoch, "step": step, "num_steps": 50, "loss": 0.25}
    ProcessState(
        name=f"{PLAN_ID}-hcrl_sa",
        supervisor=own,
        log="x.log",
        process=own,
        activity="working",
        doing=f"training {model}, epoch {epoch}, step {step} of 50",
        figures=figures,
        progress_at=now(),
    ).write(folder)


def test_a_process_that_is_not_at_work_says_nothing() -> None:
    for state in ("idle", "ended", "gone", "failed", "abandoned", "unreadable"):
        assert pulse_of(ProcessStatus(name="p", state=state, doing="training teacher_gat")).model is None
    odd = ProcessStatus(
        name="p", state="working", doing="training teacher_gat", figures={"epoch": float("nan"), "loss": "x"}
    )
    assert (pulse_of(odd).model, pulse_of(odd).epochs_done, pulse_of(odd).loss) == ("teacher_gat", None, None)


def test_captures_read_before_the_one_being_read_count_by_their_bytes() -> None:
    rows = [
        {"path": "/d/test/z.csv", "role": "test", "num_bytes": 60},
        {"path": "/d/train/b.csv", "role": "with_attacks", "num_bytes": 30},
        {"path": "/d/train/a.csv", "role": "attack_free", "num_bytes": 10},
    ]
    assert [share_read(rows, name) for name in ("a.csv", "b.csv", "z.csv", None)] == [0, 0.1, 0.4, 0]


def test_the_plan_that_something_happened_in_last_is_watched_unless_one_is_named_or_ignored(
    tmp_path: Path, log: EventLog
) -> None:
    other = sample_events(plan_id="plan-20250101-0000-bbbb")
    append(log, EVENTS)
    append(log, [event._replace(occurred_at=event.occurred_at + timedelta(days=1)) for event in other])
    assert Watch(tmp_path).look().plan_id == "plan-20250101-0000-bbbb"
    assert Watch(tmp_path, PLAN_ID).look().plan_id == PLAN_ID
    assert Watch(tmp_path, ignored=["plan-20250101-0000-bbbb"]).look().plan_id == PLAN_ID
    assert Watch(tmp_path, ignored=[PLAN_ID, "plan-20250101-0000-bbbb"]).look().plan_id is None


def test_a_look_lists_no_folder_that_has_not_changed(tmp_path: Path, log: EventLog) -> None:
    append(log, EVENTS)
    watch = Watch(tmp_path)
    long_ago = datetime.now(UTC).timestamp() - 60
    for folder in (Layout(tmp_path).events, Layout(tmp_path).events / PLAN_ID):
        os.utime(folder, (long_ago, long_ago))
    first = watch.look()
    read: list[str] = []
    watch._log._store.names = read.append  # type: ignore[assignment,method-assign]
    assert watch.look().phases == first.phases
    assert read == []


def test_a_damaged_plan_is_told_and_hides_no_other(tmp_path: Path, log: EventLog) -> None:
    append(log, EVENTS)
    append(log, sample_events(plan_id="plan-20991231-0000-cccc")[:20])
    damaged = next((Layout(tmp_path).events / "plan-20991231-0000-cccc").glob("*.parquet"))
    damaged.write_bytes(b"nonsense")
    view = Watch(tmp_path).look()
    assert (view.plan_id, view.status) == (PLAN_ID, "failed")
    assert [line.status for line in view.plans] == ["failed", "damaged"]
    told = Watch(tmp_path, "plan-20991231-0000-cccc").look()
    assert (told.status, "nonsense" in told.problem, bool(told.problem)) == ("damaged", False, True)


def test_a_view_is_json(tmp_path: Path, log: EventLog) -> None:
    append(log, EVENTS)
    view = Watch(tmp_path).look()
    assert json.loads(json.dumps(view.as_json()))["phases"][1]["models"][0]["name"] == "teacher_vgae"


def test_epochs_of_one_model_repeated_after_a_crash_are_drawn_once(tmp_path: Path, log: EventLog) -> None:
    append(log, EVENTS)
    again = EpochFinished(
        dataset="set_01", phase="student", model="student_gat", epoch=3, train_loss=9.0, val_loss=9.0,
        val_metric=None, learning_rate=1e-3, num_steps=1, duration_s=1.0, graphs_per_s=1.0, data_wait_s=0.0,
    )  # fmt: skip
    append(log, [at(again, 1)])
    model = phase_of(Watch(tmp_path).look(), "set_01", "student").models[1]
    assert (model.epochs, model.train_losses[-1]) == ((0, 1, 2, 3), 9.0)
