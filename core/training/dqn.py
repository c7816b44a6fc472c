"""The fusion agent: deep Q-learning of how much to trust the GAT over the VGAE (arXiv 2508.04845, 1312.5602).

Every window is an episode of its own: the reward is known at once and nothing follows, so gamma is 0 and
there is no target network. Windows are taken in batches, not one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from core.models.fusion import NUM_STATE, FusionNetwork
from core.training.calibration import mcc_at_half
from core.training.passes import WindowLearner, in_packs, run_passes
from core.training.run import Run
from core.training.seeds import seeded
from settings.models import FusionSettings
from settings.training import TrainingSettings

_RIGHT = 3.0
_AGREEMENT_BONUS = 1.0
_CONFIDENCE_BONUS = 0.5
_OVERCONFIDENCE = 1.5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Windows:
    """What an agent sees of ``K`` windows.

    Attributes:
        state: float32 ``[K, 15]`` in [0, 1].
        anomaly: float32 ``[K]`` probability by the VGAE.
        attack: float32 ``[K]`` probability by the GAT.
        y: float32 ``[K]`` labels.
    """

    state: Tensor
    anomaly: Tensor
    attack: Tensor
    y: Tensor

    def __getitem__(self, rows: Tensor) -> "Windows":
        """Some of the windows."""
        return Windows(self.state[rows], self.anomaly[rows], self.attack[rows], self.y[rows])


@dataclass(frozen=True)
class StateScale:
    """Brings raw states to [0, 1] by 1 % and 99 % quantiles of training windows; stored with the agent."""

    low: Floats
    high: Floats

    @classmethod
    def fit(cls, state: Floats) -> "StateScale":
        """Fit on raw states ``[K, 15]`` of training windows."""
        low, high = np.quantile(state, [0.01, 0.99], axis=0)
        return cls(low, np.where(high - low > 1e-9, high, low + 1.0))

    def apply(self, state: Floats) -> Tensor:
        """Clipped to [0, 1]: float32 ``[K, 15]``."""
        return torch.from_numpy(np.clip((state - self.low) / (self.high - self.low), 0, 1)).float()


def fuse(weight: Tensor, windows: Windows) -> Tensor:
    """``(1 - a) VGAE + a GAT``."""
    return (1 - weight) * windows.anomaly + weight * windows.attack


def reward(weight: Tensor, windows: Windows) -> Tensor:
    """Reward of weighing windows so.

    +3 for the right side of 1/2 plus bonuses for agreement of both models and for confidence; -3 for the
    wrong side, less still when confident.

    Args:
        weight: float32 ``[K]`` the GAT's weight.
        windows: The windows.

    Returns:
        float32 ``[K]``.
    """
    fused = fuse(weight, windows)
    right = (fused > 0.5) == (windows.y > 0.5)
    confidence = (2 * fused - 1).abs()
    agreement = 1 - (windows.anomaly - windows.attack).abs()
    return torch.where(
        right,
        _RIGHT + _AGREEMENT_BONUS * agreement + _CONFIDENCE_BONUS * confidence,
        -_RIGHT - _OVERCONFIDENCE * confidence,
    )


class FusionAgent:
    """Chooses for each window the weight with the highest expected reward.

    Args:
        network: Values of the actions.
    """

    def __init__(self, network: FusionNetwork) -> None:
        self.network = network
        num_actions = network.layers[-1].out_features
        assert isinstance(num_actions, int)  # noqa: S101 - narrows torch's Module | Tensor for mypy
        self.weights = torch.linspace(0, 1, num_actions)

    @torch.no_grad()
    def weigh(self, state: Tensor) -> Tensor:
        """The GAT's weight for each state: ``[K, 15]`` -> ``[K]``."""
        return self.weights[self.network(state).argmax(1)]


class ReplayBuffer:
    """The latest transitions (state, action, reward), sampled with replacement."""

    def __init__(self, capacity: int) -> None:
        self.state = torch.empty(capacity, NUM_STATE)
        self.action = torch.empty(capacity, dtype=torch.int64)
        self.reward = torch.empty(capacity)
        self.num_seen = 0

    def __len__(self) -> int:
        """Transitions held."""
        return min(self.num_seen, len(self.reward))

    def add(self, state: Tensor, action: Tensor, reward: Tensor) -> None:
        """Add transitions; the oldest give way."""
        new = slice(max(0, len(reward) - len(self.reward)), None)
        place = (self.num_seen + torch.arange(len(reward))[new]) % len(self.reward)
        self.state[place], self.action[place], self.reward[place] = state[new], action[new], reward[new]
        self.num_seen += len(reward)

    def sample(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Some transitions."""
        rows = torch.randint(len(self), (size,), generator=generator)
        return self.state[rows], self.action[rows], self.reward[rows]

    def state_dict(self) -> dict[str, Any]:
        """The transitions held."""
        held = {name: getattr(self, name)[: len(self)].clone() for name in ("state", "action", "reward")}
        return held | {"num_seen": self.num_seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Hold what a buffer of the same capacity held."""
        self.num_seen = state["num_seen"]
        for name in ("state", "action", "reward"):
            getattr(self, name)[: len(self)] = state[name]


class _AgentLearner(WindowLearner):
    """Acts on windows, remembers the rewards, and learns from what it remembers."""

    def __init__(self, run: Run, agent: FusionAgent, train: Windows, training: TrainingSettings) -> None:
        super().__init__(run, agent.network, training)
        self.agent, self.train, self.dqn = agent, train, training.dqn
        self.replay = ReplayBuffer(self.dqn.replay_capacity)
        self.epsilon = self.dqn.epsilon_start
        self.generator = torch.Generator().manual_seed(training.seed)

    def examples(self, windows: Tensor) -> tuple[Tensor, ...]:
        chosen = self.train[windows]
        with torch.no_grad():
            packs = torch.split(chosen.state, self.guard.limit.graphs)
            action = torch.cat([self.module(pack).argmax(1) for pack in packs])
        explore = torch.rand(len(action), generator=self.generator) < self.epsilon
        tried = torch.randint(self.dqn.num_actions, (len(action),), generator=self.generator)
        action = torch.where(explore, tried, action)
        self.replay.add(chosen.state, action, reward(self.agent.weights[action], chosen))
        self.epsilon = max(self.dqn.epsilon_end, self.epsilon * self.dqn.epsilon_decay)

        return self.replay.sample(self.dqn.batch_size, self.generator)

    def loss(self, *examples: Tensor) -> Tensor:
        state, action, target = examples
        value = self.module(state).gather(1, action.unsqueeze(1)).squeeze(1)
        return functional.smooth_l1_loss(value, target, reduction="sum")

    def remember(self) -> Callable[[], None]:
        drawn, epsilon, num_seen = self.generator.get_state(), self.epsilon, self.replay.num_seen

        def bring_back() -> None:
            self.generator.set_state(drawn)
            # What was added stays where it is: the same places are filled again.
            self.epsilon, self.replay.num_seen = epsilon, num_seen

        return bring_back

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "replay": self.replay.state_dict(),
            "epsilon": self.epsilon,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.replay.load_state_dict(state["replay"])
        self.epsilon = state["epsilon"]
        self.generator.set_state(state["generator"])


def train_agent(
    run: Run, train: Windows, val: Windows, fusion: FusionSettings, training: TrainingSettings
) -> FusionAgent:
    """Learn by acting: epsilon-greedy weights, rewards to the replay buffer, SmoothL1 on its samples.

    Args:
        run: Names and checkpoints.
        train: Training windows.
        val: Validation windows; the weights with the highest mean reward on them are kept.
        fusion: Width of the network.
        training: Seed, learning rate, patience and the agent's own settings.

    Returns:
        The agent.
    """
    agent = FusionAgent(seeded(lambda: FusionNetwork(fusion, training.dqn.num_actions), training.seed))

    def validate() -> tuple[float, float | None]:
        weight = in_packs(run, agent.weigh, val.state)
        fused = fuse(weight, val).double().numpy()
        return -float(reward(weight, val).mean()), mcc_at_half(fused, val.y.numpy())

    run_passes(run, _AgentLearner(run, agent, train, training), len(train.y), validate, training)
    return agent
