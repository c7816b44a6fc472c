"""A plan is taken up wherever its outputs and captures are now, and never from other captures or models."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.can.graph_store import open_graph_store
from core.errors import CaptureError, TrainingProcessError
from core.events.catalogue import Fact, GraphsBuilt, GraphsLost, ModelSaved, PlanResumed, to_event, to_fact
from core.planning.chain import Chain
from core.planning.coordinator import RetrainingCoordinator
from settings.app import Settings, load_settings
from settings.errors import SettingsError
from tests.graph_helpers import random_frames, write_csv


def settings_of(folder: Path) -> Settings:
    return load_settings(
        data={"data_dir": folder / "data", "datasets": {"car": {"folder": "car"}}},
        graph={"window": 20, "block_windows": 5},
        output_dir=folder / "out",
    )


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan that has built its graphs; they are in ``out/graphs``."""
    folder = tmp_path_factory.mktemp("begun")
    for seed, name in enumerate(("train_01_attack_free", "train_02_with_attacks", "test_01_known")):
        write_csv(folder / "data" / "car" / name / "a.csv", random_frames(800, seed))
    coordinator = RetrainingCoordinator(settings_of(folder))
    plan = coordinator.create_retraining_plan()
    coordinator.begin(plan)
    with Chain(folder / "out", plan.plan_id, "car") as chain:
        chain.run_phase("graphs")
    return folder


class Moved:
    """That plan with its outputs at another place, and its captures at a third one."""

    def __init__(self, begun: Path, folder: Path) -> None:
        shutil.copytree(begun / "out", folder / "out")
        shutil.copytree(begun / "data", folder / "moved")
        self.captures = folder / "moved"
        self.coordinator = RetrainingCoordinator(load_settings(output_dir=folder / "out"))
        self.layout = self.coordinator.layout
        (self.plan_id,) = self.coordinator.log.streams()

    def facts(self) -> list[Fact]:
        return [to_fact(event) for event in self.coordinator.log.read(self.plan_id)]

    def say(self, fact: Fact) -> None:
        self.coordinator.log.append([to_event(self.plan_id, fact)])

    def chain(self) -> Chain:
        return Chain(self.layout.root, self.plan_id, "car")

    def data_dir(self) -> Path:
        return self.coordinator.state(self.plan_id).settings_in(self.layout.root).data.data_dir

    def lose_graphs(self) -> None:
        shutil.rmtree(self.layout.graphs)


@pytest.fixture
def moved(begun: Path, tmp_path: Path) -> Moved:
    return Moved(begun, tmp_path)


def test_a_plan_keeps_absolute_folders_of_captures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "data" / "car" / "train_01_attack_free" / "a.csv", random_frames(30))
    monkeypatch.chdir(tmp_path)
    coordinator = RetrainingCoordinator(
        load_settings(data={"datasets": {"car": {"folder": "car"}}}, output_dir=tmp_path / "out")
    )
    plan = coordinator.create_retraining_plan()
    coordinator.begin(plan)
    monkeypatch.chdir("/")
    data = coordinator.state(plan.plan_id).settings_in(tmp_path).data
    assert data.data_dir == tmp_path / "data"
    assert data.demo.cache_dir.is_absolute()


def test_where_the_same_captures_are_now_is_kept(moved: Moved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(moved.captures.parent)
    moved.coordinator.resume(moved.plan_id, Path("moved"))
    assert moved.data_dir() == moved.captures
    moved.coordinator.resume(moved.plan_id)
    assert moved.data_dir() == moved.captures


def add_a_capture(car: Path) -> None:
    write_csv(car / "test_01_known" / "b.csv", random_frames(30))


def change_a_capture(car: Path) -> None:
    write_csv(car / "test_01_known" / "a.csv", random_frames(30))


def remove_a_capture(car: Path) -> None:
    (car / "train_02_with_attacks" / "a.csv").rename(car / "train_02_with_attacks" / "c.csv")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (add_a_capture, r"moved/car/test_01_known/b\.csv was not there"),
        (change_a_capture, r"data/car/test_01_known/a\.csv has other bytes"),
        (remove_a_capture, r"train_02_with_attacks/a\.csv is missing; .*c\.csv was not there"),
    ],
)
def test_other_captures_than_the_graphs_were_built_from_are_refused_and_named(
    moved: Moved, change: Callable[[Path], None], said: str
) -> None:
    change(moved.captures / "car")
    before = moved.facts()
    with pytest.raises(CaptureError, match=rf"{said}.*make a new plan"):
        moved.coordinator.resume(moved.plan_id, moved.captures)
    assert moved.facts() == before


def test_a_plan_that_has_not_read_its_captures_yet_takes_any(begun: Path, tmp_path: Path) -> None:
    coordinator = RetrainingCoordinator(
        settings_of(begun).model_copy(update={"output_dir": tmp_path / "out"})
    )
    plan = coordinator.create_retraining_plan()
    coordinator.begin(plan)
    coordinator.resume(plan.plan_id, tmp_path)
    assert coordinator.state(plan.plan_id).settings_in(tmp_path).data.data_dir == tmp_path


def cut_an_array_short(store: Path) -> None:
    (store / "x.npy").write_bytes((store / "x.npy").read_bytes()[:1000])


def lose_the_manifest(store: Path) -> None:
    (store / "manifest.json").unlink()


@pytest.mark.parametrize("damage", [shutil.rmtree, lose_the_manifest, cut_an_array_short])
def test_lost_graphs_are_to_be_built_again_before_anything_else(
    moved: Moved, damage: Callable[[Path], None]
) -> None:
    (store,) = (path for path in moved.layout.graphs.iterdir() if path.is_dir())
    damage(store)
    with moved.chain() as chain:
        assert chain.remaining()[:2] == ["graphs", "teacher"]
    assert len([fact for fact in moved.facts() if isinstance(fact, GraphsLost)]) == 1


def test_lost_graphs_are_built_again_as_they_were(moved: Moved) -> None:
    moved.lose_graphs()
    with moved.chain() as chain:
        chain.run_phase("graphs")
        assert chain.remaining()[0] == "teacher"
    first, again = (fact for fact in moved.facts() if isinstance(fact, GraphsBuilt))
    assert (again.graphs_digest, again.split_digest) == (first.graphs_digest, first.split_digest)
    assert open_graph_store(moved.layout.graphs / again.graphs_digest).num_graphs == first.num_graphs


def test_graphs_that_are_there_are_not_built_again(moved: Moved) -> None:
    with moved.chain() as chain:
        assert chain.remaining()[0] == "teacher"
    assert not [fact for fact in moved.facts() if isinstance(fact, GraphsLost)]


def test_lost_graphs_are_not_built_again_from_other_captures(moved: Moved) -> None:
    change_a_capture(moved.captures / "car")
    moved.say(PlanResumed(remaining=[], data_dir=str(moved.captures)))
    moved.lose_graphs()
    for _ in range(2):  # the refused captures never become those of the plan
        with moved.chain() as chain, pytest.raises(TrainingProcessError, match=r"other bytes") as caught:
            chain.run_phase("graphs")
        assert caught.value.kind == "data_error"


def test_graphs_built_again_that_are_others_are_refused(moved: Moved) -> None:
    (built,) = (fact for fact in moved.facts() if isinstance(fact, GraphsBuilt))
    moved.say(replace(built, split_digest="another"))
    moved.lose_graphs()
    for _ in range(2):
        with moved.chain() as chain, pytest.raises(TrainingProcessError, match=r"split another") as caught:
            chain.run_phase("graphs")
        assert caught.value.kind == "data_error"


@pytest.mark.parametrize(
    ("content", "said"), [(None, "its file is gone"), ("other", "its file is not the one that was saved")]
)
def test_a_lost_or_changed_parent_model_stops_its_child_with_what_to_do(
    moved: Moved, content: str | None, said: str
) -> None:
    moved.say(
        ModelSaved(
            dataset="car",
            phase="teacher",
            path="anywhere/teacher.pth",
            sha256="s",
            data_digest="d",
            settings_digest="d",
            parent_sha256="",
            num_parameters={},
        )
    )
    if content:
        moved.layout.saved_models.mkdir()
        (moved.layout.saved_models / "teacher.pth").write_text(content)
    with moved.chain() as chain, pytest.raises(TrainingProcessError, match=f"{said}.*new plan") as caught:
        chain.run_phase("student")
    assert caught.value.kind == "data_error"


def test_a_plan_that_did_everything_but_say_so_is_ended(tmp_path: Path) -> None:
    coordinator = RetrainingCoordinator(load_settings(output_dir=tmp_path))
    plan = coordinator.create_retraining_plan(datasets=["demo"])
    coordinator.begin(replace(plan, steps=tuple(replace(step, action="skip") for step in plan.steps)))
    heard: list[Fact] = []
    assert coordinator.resume_retraining_plan(plan.plan_id, listener=heard.append).status == "completed"
    assert heard == []
    with pytest.raises(SettingsError, match="nothing left to do"):
        coordinator.resume_retraining_plan(plan.plan_id)


def test_an_unknown_plan_is_refused_with_those_there_are(moved: Moved) -> None:
    with pytest.raises(SettingsError, match=f"no plan other in .*known plans: {moved.plan_id}"):
        moved.coordinator.resume_retraining_plan("other")
