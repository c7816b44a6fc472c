"""Training speed on a GPU: graphs/s with the store resident, against PyG's layers and DataLoader.

    python -m tests.benchmarks.bench_gpu [--graphs 16384] [--rounds 3]

The contest of ``bench_training`` on CUDA, with a batch of 128 and with one of 2 048. Writes

``tests/benchmarks/results/gpu.json``.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import bench_training
from tests.benchmarks.generated_graphs import generate

RESULTS = Path(__file__).parent / "results" / "gpu.json"


def main() -> None:
    """Run and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=int, default=16_384)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    store = generate(args.graphs)
    result: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(0),
        "torch": torch.__version__,
        "num_graphs": args.graphs,
    }
    for batch in (128, 2048):
        contest = bench_training.Contest(store, batch, "cuda", torch.bfloat16)
        for kind in ("teacher", "student", "distillation"):
            result[f"{kind}, batch {batch}"] = bench_training.measure(contest, kind, args.rounds)
            print(kind, batch, result[f"{kind}, batch {batch}"], flush=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
