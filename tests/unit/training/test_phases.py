import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.can.graph_store import open_graph_store
from core.can.splits import EMBARGO, TEST, TRAIN, VAL
from core.errors import ArtifactError, TrainingError
from core.events.catalogue import (
    EpochFinished,
    ModelEvaluated,
    ModelSaved,
    ScoresMeasured,
    ThresholdCalibrated,
    TrainingResumed,
)
from core.training.detector import score_windows
from core.training.phases import distill_student, train_teacher
from tests.synthetic import make_store, write_store
from tests.training_helpers import Recorder, make_job, quick_settings, run_chain

PHASES = ("teacher", "student", "fusion", "evaluation")
MODELS = {
    "teacher_vgae",
    "teacher_gat",
    "student_vgae",
    "student_gat",
    "fusion",
    "mlp_fusion",
    "id_frequency",
}
QUICK = quick_settings(dqn={"episodes": 3})


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder]:
    folder = tmp_path_factory.mktemp("chain")
    store = write_store(folder / "store", make_store(240, strength=6.0))
    settings = quick_settings(epochs=6, min_steps_per_epoch=15, dqn={"episodes": 5})
    return folder, run_chain(folder, store, settings, *PHASES)


def test_a_chain_saves_three_verified_files_and_evaluates_seven_models(chain: tuple[Path, Recorder]) -> None:
    folder, recorder = chain
    saved = recorder.of(ModelSaved)
    assert [fact.phase for fact in saved] == ["teacher", "student", "fusion"]
    assert [fact.parent_sha256 for fact in saved] == ["", saved[0].sha256, saved[1].sha256]
    assert sorted(p.name for p in (folder / "saved_models").iterdir()) == [
        "best_teacher_model_synthetic.pth",
        "final_student_model_synthetic.pth",
        "fusion_agent_synthetic.pth",
    ]
    for fact in saved:
        payload = torch.load(fact.path, weights_only=True)
        assert payload["data_digest"] == "data"
        assert payload["parent_sha256"] == fact.parent_sha256
    assert {fact.model for fact in recorder.of(ThresholdCalibrated)} == MODELS
    assert {fact.model for fact in recorder.of(ModelEvaluated)} == MODELS
    assert {fact.folder for fact in recorder.of(ModelEvaluated)} == {"test_01"}


def test_every_model_learned_something_real(chain: tuple[Path, Recorder]) -> None:
    auroc = {fact.model: fact.metrics["auroc"] for fact in chain[1].of(ModelEvaluated)}
    for model in ("teacher_vgae", "teacher_gat", "student_vgae", "student_gat", "fusion"):
        value = auroc[model]
        assert value is not None
        assert value > 0.9, auroc


def test_students_are_smaller_than_teachers(chain: tuple[Path, Recorder]) -> None:
    counts = {name: n for fact in chain[1].of(ModelSaved) for name, n in fact.num_parameters.items()}
    assert counts["student_vgae"] < counts["teacher_vgae"] / 2
    assert counts["student_gat"] < counts["teacher_gat"] / 2


def test_evaluation_reads_the_test_windows_and_not_the_validation_ones(chain: tuple[Path, Recorder]) -> None:
    store = make_store(240)
    for fact in chain[1].of(ModelEvaluated):
        assert fact.metrics["num_windows"] == (store.split == TEST).sum() != (store.split == VAL).sum()


def test_scores_are_described_for_each_test_folder_and_for_validation(chain: tuple[Path, Recorder]) -> None:
    store, metrics = make_store(240), {fact.model: fact.metrics for fact in chain[1].of(ModelEvaluated)}
    thresholds = {fact.model: fact.threshold for fact in chain[1].of(ThresholdCalibrated)}
    measured = {(fact.model, fact.folder): fact for fact in chain[1].of(ScoresMeasured)}
    assert set(measured) == {(model, folder) for model in MODELS for folder in ("test_01", None)}
    for (model, folder), fact in measured.items():
        windows = store.split == (VAL if folder is None else TEST)
        assert fact.threshold == thresholds[model]
        assert sum(fact.num_windows_by_score) == windows.sum()
        assert sum(fact.num_attacks_by_score or ()) == (store.y[windows] == 1).sum()
        if folder is not None:
            points = set(zip(fact.true_positives, fact.false_positives, strict=True)) | {(0, 0)}
            assert (metrics[model]["true_positives"], metrics[model]["false_positives"]) in points


def test_training_never_reads_a_test_window(tmp_path: Path) -> None:
    """Poisoned test windows change neither weights nor thresholds."""
    clean = make_store(60)
    poisoned = replace(clean, x=clean.x.copy(), y=clean.y.copy())
    tests = np.flatnonzero(clean.split == TEST)
    poisoned.x[clean.node_ptr[tests[0]] : clean.node_ptr[tests[-1] + 1]] = np.nan
    poisoned.y[tests] = 1 - poisoned.y[tests]
    hashes = [
        [
            fact.sha256
            for fact in run_chain(folder, write_store(folder / "s", s), QUICK, *PHASES[:3]).of(ModelSaved)
        ]
        for folder, s in ((tmp_path / "a", clean), (tmp_path / "b", poisoned))
    ]
    assert hashes[0] == hashes[1]


def test_two_chains_with_the_same_seed_give_the_same_files(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", make_store(40))
    first, second = (
        [fact.sha256 for fact in run_chain(tmp_path / name, store, QUICK, *PHASES[:3]).of(ModelSaved)]
        for name in ("a", "b")
    )
    assert first == second


def test_the_detector_scores_any_store_with_the_saved_models(chain: tuple[Path, Recorder]) -> None:
    folder, recorder = chain
    store = open_graph_store(folder / "store")
    [fusion] = [saved for saved in recorder.of(ModelSaved) if saved.phase == "fusion"]
    found = score_windows(store, folder / "saved_models", "synthetic", None, fusion.sha256)
    assert set(found.scores) == set(found.thresholds) == MODELS - {"teacher_vgae", "teacher_gat"}
    tests = np.flatnonzero(store.split == TEST)
    expected = next(f for f in recorder.of(ModelEvaluated) if f.model == "fusion")
    assert found.alarm[tests].sum() == expected.metrics["num_alarms"]
    for score in found.scores.values():
        assert ((score >= 0) & (score <= 1)).all()


def test_a_replaced_parent_is_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", make_store(40))
    run_chain(tmp_path, store, QUICK, "teacher")
    job = make_job(tmp_path, store, "student", QUICK, parent_sha256="0" * 64)
    with pytest.raises(ArtifactError, match=r"best_teacher_model_synthetic\.pth: sha256"):
        distill_student(job, Recorder())


def test_a_missing_parent_is_refused_by_name(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", make_store(40))
    with pytest.raises(ArtifactError, match=r"best_teacher_model_synthetic\.pth: cannot be read"):
        distill_student(make_job(tmp_path, store, "student", QUICK, parent_sha256="0" * 64), Recorder())


@pytest.mark.parametrize(("label", "words"), [(0, "is attack: add captures with attacks"), (1, "is benign")])
def test_training_windows_of_one_class_are_refused_with_advice(
    tmp_path: Path, label: int, words: str
) -> None:
    store = make_store(40)
    folder = write_store(tmp_path / "store", store)
    labels = store.y.copy()
    labels[store.split == TRAIN] = label
    np.save(folder / "y.npy", labels)
    with pytest.raises(TrainingError, match=f"synthetic: none of the .* {words}"):
        train_teacher(make_job(tmp_path, folder, "teacher", QUICK), Recorder())


def test_a_dataset_without_benign_validation_windows_is_refused(tmp_path: Path) -> None:
    store = make_store(40)
    split = np.where((store.split == VAL) & (store.y == 0), EMBARGO, store.split).astype(np.int8)
    folder = write_store(tmp_path / "store", replace(store, split=split))
    with pytest.raises(TrainingError, match="no benign validation window"):
        train_teacher(make_job(tmp_path, folder, "teacher", QUICK), Recorder())


def test_twenty_windows_and_validation_without_attacks_are_enough_to_run(tmp_path: Path) -> None:
    store = make_store(20)
    split = np.where((store.split == VAL) & (store.y == 1), TRAIN, store.split).astype(np.int8)
    folder = write_store(tmp_path / "store", replace(store, split=split))
    recorder = run_chain(tmp_path, folder, QUICK, *PHASES)
    assert {fact.model for fact in recorder.of(ModelEvaluated)} == MODELS
    assert all(fact.val_mcc is None for fact in recorder.of(ThresholdCalibrated))


def test_suppression_without_labelled_frames_is_unlabelled(tmp_path: Path) -> None:
    store = make_store(60)
    labels = np.where(store.split == TEST, 0, store.y).astype(np.uint8)
    folder = write_store(tmp_path / "store", replace(store, y=labels), ("a", "b", "test_05_suppress"))
    for fact in run_chain(tmp_path, folder, QUICK, *PHASES).of(ModelEvaluated):
        assert fact.metrics["labelled"] == 0
        assert fact.metrics["false_positive_rate"] is None
        assert fact.metrics["alarm_rate"] is not None


def test_a_plan_goes_on_from_its_own_checkpoints_and_starts_anew_beside_those_of_another(
    tmp_path: Path,
) -> None:
    store = write_store(tmp_path / "store", make_store(40))
    first = run_chain(tmp_path, store, QUICK, "teacher")
    retry, other = (run_chain(tmp_path, store, QUICK, "teacher", plan_id=plan) for plan in ("plan", "other"))
    assert len(retry.of(EpochFinished)) == 0
    assert [(f.model, f.epoch) for f in retry.of(TrainingResumed)] == [
        ("teacher_vgae", 3),
        ("teacher_gat", 3),
    ]
    assert len(other.of(EpochFinished)) == len(first.of(EpochFinished)) == 6
    assert not other.of(TrainingResumed)
    assert len({r.of(ModelSaved)[0].sha256 for r in (first, retry, other)}) == 1


@pytest.fixture
def _restore_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")  # remembered: whatever training sets goes with the test
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_restore_kernels")
def test_every_phase_can_do_with_deterministic_kernels(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", make_store(40))
    settings = quick_settings(epochs=1, deterministic=True, dqn={"episodes": 1})
    hashes = [
        [fact.sha256 for fact in run_chain(tmp_path / name, store, settings, *PHASES).of(ModelSaved)]
        for name in ("a", "b")
    ]
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 3
