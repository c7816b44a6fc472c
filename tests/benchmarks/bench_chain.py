"""Whole chains without Prefect: what each phase takes on this machine, and what came out.

python -m tests.benchmarks.bench_chain NAME [--config FILE] [--data-dir DIR] [--datasets A B]
writes tests/benchmarks/results/chain-NAME.json.
"""

import argparse
import json
import tempfile
import threading
from pathlib import Path
from typing import Any

from core.analytics.results import fold_results
from core.analytics.telemetry import summarize
from core.events.telemetry import TelemetryWriter, read_telemetry
from core.planning.coordinator import RetrainingCoordinator
from core.resources.probes import Probe
from core.resources.sampler import sample_until
from settings.app import load_settings

RESULTS = Path(__file__).parent / "results"
SHOWN = (
    "precision",
    "recall",
    "f1",
    "macro_f1",
    "mcc",
    "auroc",
    "false_positive_rate",
    "false_alarms_per_hour",
)


def main() -> None:
    """Run the chains and write the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--datasets", nargs="+", default=["demo"])
    arguments = parser.parse_args()
    data = {"data": {"data_dir": arguments.data_dir}} if arguments.data_dir else {}
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(arguments.config, output_dir=Path(folder), **data)
        found = run(RetrainingCoordinator(settings), arguments.datasets)
    text = json.dumps(found, indent=1, sort_keys=True)
    (RESULTS / f"chain-{arguments.name}.json").write_text(text + "\n")
    print(text)


def run(coordinator: RetrainingCoordinator, datasets: list[str]) -> dict[str, Any]:
    """Train and evaluate datasets while the machine is sampled."""
    plan = coordinator.create_retraining_plan(datasets=datasets)
    layout = coordinator.layout
    ended = threading.Event()
    sampler = threading.Thread(
        target=sample_until,
        args=(
            ended.wait,
            Probe(layout.root).sample,
            TelemetryWriter(layout.telemetry, plan.plan_id, "all").write,
        ),
        kwargs={"interval_s": 0.2, "flush_interval_s": 5.0},
    )
    sampler.start()
    try:
        coordinator.execute_retraining_plan(plan)
    finally:
        ended.set()
        sampler.join()
    results = fold_results(coordinator.log.read(plan.plan_id))
    machine = {k: plan.machine[k] for k in ("device_name", "num_cpus", "torch_version", "precision")}
    return {
        "machine": machine,
        "preset": plan.settings.models.preset,
        "status": results.status,
        "telemetry": vars(summarize(read_telemetry(layout.telemetry, plan.plan_id))),
        "datasets": {
            name: {
                "phases_s": {p: result.duration_s for p, result in dataset.phases.items()},
                "peak_memory_mib": {p: result.peak_memory_mib for p, result in dataset.phases.items()},
                "graphs_per_s": {m: model.graphs_per_s for m, model in dataset.training.items()},
                "epochs": {m: model.last_epoch + 1 for m, model in dataset.training.items()},
                "metrics": {
                    model: {
                        folder: {key: metrics.get(key) for key in SHOWN}
                        for folder, metrics in folders.items()
                    }
                    for model, folders in dataset.metrics.items()
                },
            }
            for name, dataset in results.datasets.items()
        },
    }


if __name__ == "__main__":
    main()
