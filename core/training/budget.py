"""How much a pack may hold: measured, known from the log, or plainly enough; and what binds it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from core.events.resource_facts import PackLimitChosen
from core.resources.readings import MIB
from core.training.graph_data import GraphData
from core.training.memory import PackGuard
from core.training.memory_model import MemoryModel
from core.training.packs import Indices, KnownLimit, PackLimit, largest_step
from core.training.placement import free_bytes
from core.training.precision import Precision
from core.training.probing import bound_memory, probe_memory
from core.training.run import Run
from core.training.step import Objective

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Budget:
    """What packs may hold and why; fields of ``core.events.resource_facts.PackLimitChosen``."""

    limit: PackLimit
    most: PackLimit
    binds: str
    source: str
    memory: dict[str, float]


@dataclass(frozen=True)
class Demand:
    """What a training asks of its packs.

    Attributes:
        largest: The most graphs, nodes and edges of a step.
        mean_nodes: Nodes of a usual graph.
        mean_edges: Edges of one.
        cap: What the settings allow.
    """

    largest: PackLimit
    mean_nodes: float
    mean_edges: float
    cap: PackLimit

    @property
    def binds(self) -> str:
        """What keeps packs from being larger where memory does not."""
        return "step" if self.cap.holds(self.largest) else "setting"

    @property
    def pack(self) -> PackLimit:
        """The largest pack there can be."""
        if self.cap.holds(self.largest):
            return self.largest
        share = self.cap.graphs / self.largest.graphs
        # Twice its share: the largest graphs of a step may come together.
        nodes, edges = (int(2 * share * n) + 1 for n in (self.largest.nodes, self.largest.edges))
        return PackLimit(self.cap.graphs, nodes, edges).within(self.largest)


def choose_budget(
    demand: Demand,
    room_bytes: float,
    bound: MemoryModel,
    probe: Callable[[], MemoryModel | None],
    own: KnownLimit | None = None,
    history: KnownLimit | None = None,
) -> Budget:
    """Choose a pack limit.

    Args:
        demand: What is asked for.
        room_bytes: Memory that packs may fill.
        bound: What packs take at most.
        probe: Measures what they take; None where hardly anything fits.
        own: What this plan chose before: it is chosen again, or resumed weights would not be the same.
        history: What was learned in other plans under the same conditions.
    """
    if own:
        limit, most = own.limit.within(demand.cap), own.most.within(demand.cap)
        binds = own.binds if limit == own.limit else "setting"
        return Budget(limit, most, binds, "history", dict(own.memory))
    model = MemoryModel.from_event(history.memory) if history else None
    was_lowered = history is not None and history.limit != history.most
    if bound.bytes(demand.pack) <= room_bytes:
        budget = Budget(demand.cap, demand.cap, demand.binds, "bound", {})
    else:
        source = "history" if model else "probed"
        budget = _measured(demand, room_bytes, model or probe(), source)
    if history and was_lowered:
        budget = replace(budget, limit=history.limit.within(budget.most), binds="history", source="history")
    return replace(
        budget,
        memory={
            "room_mib": room_bytes / MIB,
            **(budget.memory or {"step_mib": bound.bytes(demand.pack) / MIB}),
        },
    )


def _measured(demand: Demand, room_bytes: float, model: MemoryModel | None, source: str) -> Budget:
    if model is None:
        return Budget(PackLimit(1), demand.cap, "memory", source, {})
    if model.bytes(demand.pack) <= room_bytes:
        return Budget(demand.cap, demand.cap, demand.binds, source, model.to_event())
    limit = model.limit(room_bytes, demand.mean_nodes, demand.mean_edges).within(demand.cap)
    binds = "history" if source == "history" else "memory"
    return Budget(limit, limit, binds, source, model.to_event())


def guard_packs(
    run: Run,
    objective: Objective,
    data: GraphData,
    precision: Precision,
    steps: Sequence[Indices],
    key: str,
    cap: int,
    target: float,
    history: KnownLimit | None = None,
) -> PackGuard:
    """Choose how much the packs of a training may hold, say so, and keep them within memory from then on.

    Args:
        run: Whose training it is.
        objective: What is trained, on its device.
        data: Where graphs come from.
        precision: Number format.
        steps: Those of an epoch.
        key: What the choice holds for: see ``PackLimitChosen``.
        cap: Most graphs of a pack.
        target: Share of the free memory that packs may fill.
        history: What was learned under the same key in other plans.
    """
    largest = largest_step(steps, data.num_nodes, data.num_edges)
    graphs = np.unique(np.concatenate(steps))
    nodes, edges = data.num_nodes(graphs), data.num_edges(graphs)
    bound = bound_memory(objective.module, int(nodes.max()))
    noise = largest.nodes * objective.num_node_normal + largest.edges * objective.num_edge_uniform
    moments = 2 * sum(p.numel() for p in objective.module.parameters())

    def room_bytes() -> float:
        """Free memory but for a step's random numbers and what the optimizer keeps."""
        return target * max(0.0, free_bytes(precision.device) - _FLOAT_BYTES * (noise + moments))

    budget = choose_budget(
        Demand(largest, float(nodes.mean()), float(edges.mean()), PackLimit(cap)),
        room_bytes(),
        bound,
        partial(probe_memory, objective, data, precision, graphs),
        run.known,
        history,
    )
    run.emit(
        PackLimitChosen(
            **run.names,
            limit=budget.limit.to_event(),
            most=budget.most.to_event(),
            binds=budget.binds,
            source=budget.source,
            memory=budget.memory,
            key=key,
        )
    )
    model = MemoryModel.from_event(budget.memory) or bound
    return PackGuard.of(run, budget.limit, budget.most, lambda size: model.bytes(size) <= room_bytes())


def limit_key(device_name: str, model: str, module: torch.nn.Module, data: str, precision: Precision) -> str:
    """What a pack limit holds for: see ``PackLimitChosen``; the model with its number of weights.

    Args:
        device_name: The GPU, or the CPU.
        model: Name of the model.
        module: Its weights.
        data: Digest of the graphs.
        precision: Number format.
    """
    num_weights = sum(p.numel() for p in module.parameters())
    number_format = str(precision.dtype).removeprefix("torch.")
    return "/".join([device_name, f"{model}:{num_weights}", data, torch.__version__, number_format])
