from pathlib import Path

import numpy as np
import pytest
import torch

from core.can.graph_store import GraphStore
from core.events.catalogue import EpochFinished
from core.training.dqn import ReplayBuffer, StateScale, Windows, fuse, reward, train_agent
from core.training.id_frequency import IdFrequency
from core.training.mlp_fusion import mlp_probability, train_mlp
from settings.models import FusionSettings
from settings.training import DqnSettings, TrainingSettings
from tests.synthetic import make_store
from tests.training_helpers import Recorder, fusion_windows, make_run

TRAINING = TrainingSettings(
    lr=0.003, patience=10, min_steps_per_epoch=10, dqn=DqnSettings(episodes=12, batch_size=64)
)


def test_a_right_answer_is_rewarded_and_a_confident_wrong_one_punished() -> None:
    windows = Windows(
        torch.zeros(3, 15), *(torch.tensor(v) for v in ([0.9, 0.9, 0.6], [0.9, 0.9, 0.6], [1.0, 0, 0]))
    )
    right, wrong, unsure = reward(torch.full((3,), 0.5), windows).tolist()
    assert right == pytest.approx(3 + 1 + 0.5 * 0.8)
    assert wrong == pytest.approx(-3 - 1.5 * 0.8)
    assert wrong < unsure < 0


def test_the_agent_learns_whom_to_trust(tmp_path: Path) -> None:
    train, val = fusion_windows(1500, 0), fusion_windows(400, 1)
    recorder = Recorder()
    agent, again = (
        train_agent(make_run(tmp_path / name, recorder, 1e9), train, val, FusionSettings(hidden=32), TRAINING)
        for name in ("a", "b")
    )
    fused = fuse(agent.weigh(val.state), val)
    accuracy = ((fused > 0.5) == (val.y > 0.5)).float().mean().item()
    assert accuracy > 0.85  # either model alone is right half of the time
    epochs = recorder.of(EpochFinished)
    assert epochs[-1].val_loss < epochs[0].val_loss
    kept = min(epochs, key=lambda epoch: epoch.val_loss)
    assert kept.val_metric == pytest.approx(2 * accuracy - 1, abs=0.1)
    assert torch.equal(agent.weigh(val.state), again.weigh(val.state))


def test_the_mlp_baseline_learns_from_the_same_state(tmp_path: Path) -> None:
    train, val = fusion_windows(1500, 0), fusion_windows(400, 1)
    for windows in (train, val):
        windows.state[:, 1] = 0.5 * windows.y + 0.25
    run = make_run(tmp_path, Recorder(), 1e9)
    network = train_mlp(run, train, val, FusionSettings(hidden=16), TRAINING)
    probability = mlp_probability(network, val.state)
    assert ((probability > 0.5) == (val.y.numpy() > 0.5)).mean() > 0.95


def test_states_are_brought_to_the_unit_range_of_training() -> None:
    raw = np.random.default_rng(0).normal(5, 3, (500, 15))
    raw[:, 3] = 7.0
    scale = StateScale.fit(raw)
    state = scale.apply(np.concatenate([raw, raw * 100]))
    assert state.shape == (1000, 15)
    assert 0 <= float(state.min()) <= float(state.max()) <= 1
    assert float(state[:500, 0].std()) > 0.1


def test_the_replay_buffer_forgets_the_oldest() -> None:
    replay = ReplayBuffer(5)
    for value in range(4):
        replay.add(torch.zeros(2, 15), torch.full((2,), value), torch.full((2,), float(value)))
    assert len(replay) == 5
    _, action, _ = replay.sample(200, torch.Generator().manual_seed(0))
    assert set(action.tolist()) == {1, 2, 3}


def _counts(store: GraphStore, value: float) -> GraphStore:
    store.x[:, 24] = value
    return store


def test_id_frequency_alarms_on_unseen_ids_and_unusual_counts_only() -> None:
    store = _counts(make_store(60), 8.0)
    benign = np.flatnonzero(store.y == 0)
    model = IdFrequency.fit(store, benign)
    assert np.array_equal(
        model.ids, np.unique(store.node_id[np.concatenate([_rows(store, int(g)) for g in benign])])
    )
    usual = model.score(store, benign)
    unseen = model.score(store, np.array([1]))  # an odd attack window carries an id of its own
    assert usual.max() < 0.9
    assert unseen > 0.95
    store.x[_rows(store, int(benign[0])), 24] = 80.0
    assert model.score(store, benign[:1]) > usual.max()


def _rows(store: GraphStore, graph: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.arange(store.node_ptr[graph], store.node_ptr[graph + 1])
