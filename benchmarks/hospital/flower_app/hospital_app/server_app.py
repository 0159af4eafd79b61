"""ServerApp: Flower's own FedAvg, which keeps the version after each round."""

from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run FedAvg, weighted by the number of examples."""
    config = context.run_config
    with np.load(str(config["start"])) as file:
        start = ArrayRecord({name: Array(file[name]) for name in file.files})
    out = Path(str(config["out"]))

    def keep(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        path = out / f"{number:06d}.npz"
        with path.with_suffix(".part").open("wb") as part:
            np.savez(part, **{name: array.numpy() for name, array in arrays.items()})
        path.with_suffix(".part").rename(path)
        return None

    strategy = FedAvg(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=int(config["least"]),
        min_available_nodes=int(config["nodes"]),
    )
    strategy.start(
        grid=grid,
        initial_arrays=start,
        num_rounds=int(config["rounds"]),
        timeout=float(config["timeout"]),
        evaluate_fn=keep,
    )
