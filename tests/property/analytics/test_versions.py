"""Versions of models over any history of plans: numbers stay, and there is one champion."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.analytics.versions import (
    DECIDING_MODEL,
    DEFAULT_TOLERANCE,
    ModelVersion,
    fold_versions,
    mcc_tolerance,
    parent_version,
)
from core.events.catalogue import (
    Fact,
    GraphsBuilt,
    ModelEvaluated,
    ModelSaved,
    PhaseFailed,
    PhaseFinished,
    PlanCreated,
    ThresholdCalibrated,
    to_event,
)
from core.events.event import Event
from tests.sample_log import START, sample_events

NUM_VAL, ATTACK_SHARE = 400, 0.5


@dataclass(frozen=True)
class Training:
    """What one plan does with the teacher of one dataset."""

    sha256: str = "a"
    captures: str = "d"
    mcc: float | None = 0.9
    dataset: str = "car"
    finished: bool = True
    calibrated: bool = True
    graphs: bool = True
    test_f1: float = 0.5

    def facts(self) -> list[Fact]:
        name = {"dataset": self.dataset, "phase": "teacher"}
        machine = {"code_version": "1.2.3", "code_commit": "c0ffee"}
        built = GraphsBuilt(
            dataset=self.dataset, path="", graphs_digest="", split_digest="", num_frames=0, num_graphs=1000,
            num_nodes=0, num_edges=0, num_attack_graphs=int(1000 * ATTACK_SHARE), splits={"val": NUM_VAL},
            duration_s=0.0, cached=False,
        )  # fmt: skip
        saved = ModelSaved(
            **name, path="t.pth", sha256=self.sha256, data_digest=self.captures, settings_digest="s",
            parent_sha256="", num_parameters={"teacher_vgae": 2, "teacher_gat": 3},
        )  # fmt: skip
        ended: Fact = PhaseFinished(**name, attempt=1, duration_s=1.0, peak_memory_mib=1.0)
        if not self.finished:
            ended = PhaseFailed(**name, attempt=1, kind="bug", message="", micro_batch_size=1)
        calibrated = [
            ThresholdCalibrated(dataset=self.dataset, model=model, threshold=0.4, val_mcc=mcc)
            for model, mcc in (("teacher_vgae", 0.1), ("teacher_gat", self.mcc), ("elsewhere", 1.0))
        ]
        tested = ModelEvaluated(
            dataset=self.dataset, model="teacher_gat", folder="test_01", metrics={"f1": self.test_f1}
        )
        return [
            PlanCreated(steps=[], settings={}, machine=machine, force=False, previous=[]),
            *([built] if self.graphs else []),
            saved,
            ended,
            *([*calibrated, tested] if self.calibrated else []),
        ]


def history(*trainings: Training) -> list[list[Event]]:
    """One plan per training, one after the other."""
    return [
        [
            to_event(f"plan-{number:02}", fact)._replace(
                position=position, occurred_at=START + timedelta(hours=number, seconds=position)
            )
            for position, fact in enumerate(training.facts())
        ]
        for number, training in enumerate(trainings)
    ]


def teachers(*trainings: Training) -> tuple[ModelVersion, ...]:
    return fold_versions(history(*trainings))["car", "teacher"]


def roles(*trainings: Training) -> list[str]:
    return [version.role for version in teachers(*trainings)]


TRAININGS = st.lists(
    st.builds(
        Training,
        sha256=st.sampled_from("abcdef"),
        captures=st.sampled_from("de"),
        mcc=st.none() | st.floats(-1, 1) | st.just(math.nan),
        dataset=st.sampled_from(["car", "van"]),
        finished=st.booleans(),
        calibrated=st.booleans(),
        graphs=st.booleans(),
        test_f1=st.floats(0, 1),
    ),
    max_size=8,
)


@given(TRAININGS)
@settings(deadline=None, max_examples=150)
def test_one_version_is_champion_once_any_is_complete_and_at_most_one_contends(
    trainings: list[Training],
) -> None:
    for versions in fold_versions(history(*trainings)).values():
        assert [version.number for version in versions] == list(range(1, len(versions) + 1))
        assert len({version.sha256 for version in versions}) == len(versions)
        shown = [version.role for version in versions]
        assert shown.count("champion") == any(version.complete for version in versions)
        assert shown.count("challenger") <= 1
        assert all(version.complete for version in versions if version.role == "champion")
        assert all(version.reason for version in versions if version.role)


@given(TRAININGS, st.integers(0, 8), st.integers(0, 40))
@settings(deadline=None, max_examples=150)
def test_what_is_added_to_the_log_never_renumbers_a_version(
    trainings: list[Training], num_plans: int, num_events: int
) -> None:
    streams = history(*trainings)
    earlier = streams[:num_plans] + [events[:num_events] for events in streams[num_plans : num_plans + 1]]
    after = fold_versions(streams)
    for key, versions in fold_versions(earlier).items():
        for before, now in zip(versions, after[key], strict=False):
            fixed = {name: getattr(now, name) for name in ("finished", "thresholds", "val_mcc", "metrics")}
            changing = fixed | {name: getattr(now, name) for name in ("evaluated_by", "role", "reason")}
            assert replace(before, **changing) == now


@given(TRAININGS, st.randoms())
@settings(deadline=None, max_examples=100)
def test_the_order_in_which_plans_are_listed_does_not_matter(
    trainings: list[Training], rng: random.Random
) -> None:
    streams = [*history(*trainings), *history(*trainings[:2])]  # the latter: plans of equal time and name
    streams = [
        [event._replace(stream=f"{event.stream}-{number}") for event in events]
        for number, events in enumerate(streams)
    ]
    listed = repr(fold_versions(streams))
    rng.shuffle(streams)
    assert repr(fold_versions(streams)) == listed


@given(TRAININGS, st.floats(0, 1))
@settings(deadline=None, max_examples=100)
def test_test_folders_choose_nothing(trainings: list[Training], f1: float) -> None:
    others = [replace(training, test_f1=f1) for training in trainings]
    chosen, same = (
        {key: [(v.role, v.reason) for v in versions] for key, versions in fold_versions(streams).items()}
        for streams in (history(*trainings), history(*others))
    )
    assert chosen == same


def test_versions_say_where_they_come_from_and_how_good_they_are() -> None:
    (version,) = teachers(Training(mcc=0.75, test_f1=0.25))
    assert (version.number, version.plan_id, version.saved_at) == (
        1, "plan-00", START + timedelta(seconds=2),
    )  # fmt: skip
    assert (version.code_version, version.code_commit) == ("1.2.3", "c0ffee")
    assert version.val_mcc == {"teacher_vgae": 0.1, "teacher_gat": 0.75}
    assert version.thresholds == {"teacher_vgae": 0.4, "teacher_gat": 0.4}
    assert version.score == 0.75
    assert version.metrics == {"teacher_gat": {"test_01": {"f1": 0.25}}}
    assert (version.role, version.evaluated_by) == ("champion", "plan-00")


def test_the_tolerance_is_a_standard_error_on_the_windows_there_were() -> None:
    assert mcc_tolerance(0.9, NUM_VAL, 0.5) == pytest.approx(math.sqrt(0.19 / NUM_VAL))
    assert mcc_tolerance(0.9, NUM_VAL, 0.1) == pytest.approx(math.sqrt(0.19 / NUM_VAL / 0.36))
    assert mcc_tolerance(1.0, 100, 0.5) == pytest.approx(0.02)  # one of 50 attacks or of 50 benign windows
    assert mcc_tolerance(0.9, 0, 0.5) == mcc_tolerance(0.9, NUM_VAL, 0.0) == DEFAULT_TOLERANCE


def test_a_newer_version_takes_over_unless_it_is_worse_by_more_than_the_tolerance() -> None:
    tolerance = mcc_tolerance(0.9, NUM_VAL, ATTACK_SHARE)
    better, within = Training("b", mcc=0.95), Training("b", mcc=0.9 - 0.9 * tolerance)
    beyond = Training("b", mcc=0.9 - 1.1 * tolerance)
    assert roles(Training("a"), better) == ["", "champion"]
    assert roles(Training("a"), within) == ["", "champion"]
    assert roles(Training("a"), beyond) == ["champion", "challenger"]
    assert "lower by more than" in teachers(Training("a"), beyond)[1].reason


def test_where_the_number_of_windows_is_unknown_a_hundredth_is_tolerated() -> None:
    assert roles(Training("a", graphs=False), Training("b", mcc=0.891, graphs=False)) == ["", "champion"]
    assert roles(Training("a", graphs=False), Training("b", mcc=0.889, graphs=False)) == [
        "champion", "challenger",
    ]  # fmt: skip


def test_small_losses_do_not_add_up() -> None:
    step = 0.6 * mcc_tolerance(0.9, NUM_VAL, ATTACK_SHARE)
    sinking = [Training(sha256, mcc=0.9 - number * step) for number, sha256 in enumerate("abc")]
    assert roles(*sinking) == ["", "champion", "challenger"]


def test_a_champion_of_other_captures_is_stale_however_good_it_was() -> None:
    assert roles(Training("a", mcc=0.99), Training("b", captures="e", mcc=0.2)) == ["", "champion"]
    again = [Training("a", mcc=0.99), Training("b", captures="e", mcc=0.2), Training("a", mcc=0.99)]
    assert roles(*again) == ["champion", ""]


def test_an_undefined_score_is_lower_than_any_and_not_lower_than_itself() -> None:
    undefined, known = Training("a", mcc=None), Training("b", mcc=0.1)
    assert roles(undefined, known) == ["", "champion"]
    assert roles(known, undefined) == ["champion", "challenger"]
    assert roles(undefined, Training("b", mcc=None)) == ["", "champion"]


def test_what_failed_or_was_not_calibrated_contends_at_most() -> None:
    for broken in (Training("b", finished=False), Training("b", calibrated=False)):
        assert roles(broken) == ["challenger"]
        assert roles(Training("a"), broken) == ["champion", "challenger"]
        assert roles(Training("a"), broken, Training("c")) == ["", "", "champion"]


def test_a_version_saved_again_keeps_its_number_and_is_the_newest_again() -> None:
    assert roles(Training("a"), Training("a", mcc=0.9)) == ["champion"]
    assert roles(Training("a"), Training("b", mcc=0.1), Training("a")) == ["champion", ""]
    thrice = [Training("a"), Training("b", mcc=0.1), Training("c", mcc=0.2), Training("b", mcc=0.1)]
    assert roles(*thrice) == ["champion", "challenger", ""]


def test_a_plan_that_only_evaluates_calibrates_the_models_of_earlier_plans() -> None:
    killed, evaluation = Training("a", calibrated=False), Training("a")
    first, second = history(killed, evaluation)
    second = [event for event in second if event.type in {ThresholdCalibrated.TYPE, ModelEvaluated.TYPE}]
    (version,) = fold_versions([second, first])["car", "teacher"]
    assert (version.role, version.plan_id, version.evaluated_by) == ("champion", "plan-00", "plan-01")


def test_a_chain_of_models_is_followed_from_child_to_parent() -> None:
    events = sample_events(failures=False)
    parents = {"student": "teacher", "fusion": "student"}
    sha256 = {
        (event.payload["dataset"], event.payload["phase"]): event.payload["sha256"]
        for event in events
        if event.type == ModelSaved.TYPE
    }

    def linked(event: Event) -> Event:
        if event.type != ModelSaved.TYPE:
            return event
        parent = sha256.get((event.payload["dataset"], parents.get(event.payload["phase"], "")), "")
        return event._replace(payload={**event.payload, "parent_sha256": parent})

    versions = fold_versions([list(map(linked, events))])
    assert len(versions) == 6
    for (dataset, phase), (version,) in versions.items():
        parent = parent_version(versions, version)
        assert parent == (versions[dataset, parents[phase]][0] if phase in parents else None)
        assert DECIDING_MODEL[phase] in version.metrics
        assert version.role == "champion"


def test_an_empty_history_has_no_versions() -> None:
    streams: Sequence[Sequence[Event]] = [[], []]
    assert fold_versions(streams) == {}
