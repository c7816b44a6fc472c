"""What is missing or stale is decided by the log."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.can.digest import digest_captures
from core.can.registry import find_captures
from core.events.catalogue import CapturesDigested, Fact, ModelSaved, PhaseFinished, to_event
from core.planning import phases
from core.planning.phases import MODEL_PHASES, PHASES, settings_digest
from core.planning.plan import Plan, create_plan
from core.planning.registry_view import REGISTRY_VIEW, RegistryView
from settings.app import Settings, load_settings
from settings.errors import SettingsError

HEADER = "timestamp,arbitration_id,data_field,attack\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for folder in ("train_01_attack_free", "train_02_with_attacks", "test_01_known"):
        path = tmp_path / "data" / "car" / folder
        path.mkdir(parents=True)
        (path / "a.csv").write_text(f"{HEADER}0.1,1A0,00FF,0\n# {folder}\n")
    return load_settings(
        data={"data_dir": tmp_path / "data", "datasets": {"car": {"folder": "car"}}},
        output_dir=tmp_path / "out",
    )


def trained(settings: Settings, **changes: dict[str, Any]) -> list[Fact]:
    """Facts of a car whose chain is complete and up to date, with some models' records changed."""
    digest, rows = digest_captures(find_captures("car", settings.data), {})
    planned = create_plan(settings, RegistryView(), {}, datasets=["car"]).created()
    facts: list[Fact] = [planned, CapturesDigested(dataset="car", data_digest=digest, captures=rows)]
    parent = ""
    for phase in MODEL_PHASES:
        path = settings.output_dir / "saved_models" / f"{phase}.pth"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(phase)
        record: dict[str, Any] = {
            "dataset": "car",
            "phase": phase,
            "path": str(path),
            "sha256": hashlib.sha256(phase.encode()).hexdigest(),
            "data_digest": digest,
            "settings_digest": settings_digest(settings, "car", phase),
            "parent_sha256": parent,
            "num_parameters": {},
        }
        facts.append(ModelSaved(**{**record, **changes.get(phase, {})}))
        parent = record["sha256"]
    facts.append(
        PhaseFinished(dataset="car", phase="evaluation", attempt=1, duration_s=1.0, peak_memory_mib=1.0)
    )
    return facts


def view(facts: list[Fact]) -> RegistryView:
    return REGISTRY_VIEW.fold(to_event("earlier", fact) for fact in facts)


def running(plan: Plan) -> list[str]:
    return [step.phase for step in plan.steps if step.action == "run"]


def reasons(plan: Plan) -> dict[str, str]:
    return {step.phase: step.reason for step in plan.steps}


def test_a_dataset_that_was_never_trained_runs_every_phase(settings: Settings) -> None:
    plan = create_plan(settings, RegistryView(), {})
    assert running(plan) == list(PHASES)
    assert reasons(plan)["teacher"] == "never trained"


def test_an_up_to_date_dataset_runs_nothing_and_says_by_which_captures(settings: Settings) -> None:
    facts = trained(settings)
    plan = create_plan(settings, view(facts), {})
    assert running(plan) == []
    assert isinstance(facts[1], CapturesDigested)
    assert facts[1].data_digest[:8] in reasons(plan)["teacher"]


def test_force_runs_everything(settings: Settings) -> None:
    assert running(create_plan(settings, view(trained(settings)), {}, force=True)) == list(PHASES)


def test_changed_captures_retrain_the_chain(settings: Settings) -> None:
    known = view(trained(settings))
    (settings.data.data_dir / "car" / "train_01_attack_free" / "b.csv").write_text(f"{HEADER}0.1,1A0,00,0\n")
    plan = create_plan(settings, known, {})
    assert running(plan) == list(PHASES)
    assert reasons(plan)["teacher"].startswith("captures changed")


def test_a_touched_file_with_the_same_bytes_is_no_change(settings: Settings) -> None:
    known = view(trained(settings))
    path = settings.data.data_dir / "car" / "train_01_attack_free" / "a.csv"
    path.write_bytes(path.read_bytes())
    assert running(create_plan(settings, known, {})) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"training": {"lr": 0.5}}, list(PHASES)),
        ({"graph": {"window": 50}}, list(PHASES)),
        ({"training": {"distillation": {"temperature": 2.0}}}, ["graphs", "student", "fusion", "evaluation"]),
        ({"training": {"dqn": {"episodes": 3}}}, ["graphs", "fusion", "evaluation"]),
        ({"training": {"num_threads": 1, "max_retries": 0, "micro_batch_size": 8}}, []),
        ({"training": {"checkpoint_interval_s": 0.0, "keep_checkpoints": 9, "deterministic": True}}, []),
        ({"resources": {"sample_interval_s": 5.0}}, []),
    ],
)
def test_only_settings_that_matter_to_a_phase_make_it_stale(
    settings: Settings, change: dict[str, Any], expected: list[str]
) -> None:
    known = view(trained(settings))
    changed = load_settings(data=settings.data.model_dump(), output_dir=settings.output_dir, **change)
    assert running(create_plan(changed, known, {})) == expected


def test_a_newer_parent_retrains_its_descendants(settings: Settings) -> None:
    known = view(trained(settings, student={"parent_sha256": "sha-of-an-older-teacher"}))
    plan = create_plan(settings, known, {})
    assert running(plan) == ["graphs", "student", "fusion", "evaluation"]
    assert "newer" in reasons(plan)["student"]
    assert reasons(plan)["fusion"] == "its student is retrained"


def test_a_saved_file_that_is_gone_is_trained_again(settings: Settings) -> None:
    known = view(trained(settings))
    (settings.output_dir / "saved_models" / "fusion.pth").unlink()
    assert running(create_plan(settings, known, {})) == ["graphs", "fusion", "evaluation"]


def test_a_saved_file_that_was_overwritten_is_trained_again(settings: Settings) -> None:
    known = view(trained(settings))
    (settings.output_dir / "saved_models" / "student.pth").write_text("something else")
    plan = create_plan(settings, known, {})
    assert running(plan) == ["graphs", "student", "fusion", "evaluation"]
    assert "not the one that was saved" in reasons(plan)["student"]


def test_a_changed_evaluation_is_done_again_without_training(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = view(trained(settings))
    monkeypatch.setitem(phases.RECIPE_VERSION, "evaluation", 99)
    assert running(create_plan(settings, known, {})) == ["graphs", "evaluation"]


def test_models_that_were_never_evaluated_are_evaluated_only(settings: Settings) -> None:
    known = view(trained(settings)[:-1])
    assert running(create_plan(settings, known, {})) == ["graphs", "evaluation"]


def test_a_file_on_disk_that_the_log_knows_nothing_of_does_not_count(settings: Settings) -> None:
    trained(settings)
    assert running(create_plan(settings, RegistryView(), {})) == list(PHASES)


def test_priority_datasets_come_first(settings: Settings) -> None:
    both = settings.model_copy(
        update={
            "data": settings.data.model_copy(
                update={"datasets": {**settings.data.datasets, "twin": settings.data.datasets["car"]}}
            )
        }
    )
    assert create_plan(both, RegistryView(), {}).datasets == ["car", "twin"]
    assert create_plan(both, RegistryView(), {}, priority=["twin"]).datasets == ["twin", "car"]


def test_an_unknown_dataset_is_refused_with_the_known_ones(settings: Settings) -> None:
    with pytest.raises(SettingsError, match=r"'cra'.*hcrl_ch.*car"):
        create_plan(settings, RegistryView(), {}, datasets=["cra"])


def test_published_datasets_that_are_absent_are_named_but_not_planned(settings: Settings) -> None:
    plan = create_plan(settings, RegistryView(), {})
    assert plan.datasets == ["car"]
    assert str(settings.data.data_dir) in plan.absent["hcrl_ch"]


def test_a_dataset_asked_for_by_name_is_planned_even_if_it_is_absent(settings: Settings) -> None:
    plan = create_plan(settings, RegistryView(), {}, datasets=["hcrl_ch"])
    assert running(plan) == list(PHASES)


def test_no_dataset_at_all_is_an_error_with_advice(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--datasets demo"):
        create_plan(load_settings(data={"data_dir": tmp_path}), RegistryView(), {})


def test_planning_reads_no_file_whose_size_and_time_are_known(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = view(trained(settings))
    opened: list[Path] = []
    real_open: Callable[..., Any] = Path.open

    def recording_open(path: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(path)
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", recording_open)
    create_plan(settings, known, {})
    assert not [path for path in opened if path.suffix == ".csv"]
