"""Resident trainer of one site of the Flower arm: trains with fccl's own `worker.trainer`.

    python -m benchmarks.hospital.trainer_process RUN BASE SITE ROWS SOCKET STEP_S [SEED]

Flower starts a new process for every message. If that process trained, it would import torch and
load the model each time, on a machine that all sites share here; so the ClientApp passes the
version on to this process, which keeps the model, as an fccl worker does. The settings of training
are those of a task of the fccl run RUN.
"""

from __future__ import annotations

import hashlib
import io
import sys
import time
from multiprocessing.connection import Connection, Listener
from pathlib import Path

import numpy as np

from benchmarks.hospital import pace
from common.protocol.tasks import BlobRef, LocalTraining, TrainTask
from common.protocol.tensors import Tensors
from common.run_directory.recorded_run import RecordedRun, read_run
from learning.training.device import detect
from worker.data.import_rows import import_rows
from worker.data.references import References
from worker.data.shards import ClientData
from worker.models.loaded import ModelCache
from worker.trainer import TrainedTask, Trainer


class SiteTrainer:
    """Trainer of one site."""

    def __init__(self, run: RecordedRun, base: Path, site: str, rows: Path, out: Path) -> None:
        self._run, self._base, self._site = run, base, site
        data = ClientData(import_rows([rows], site, out, print), site)
        self._trainer = Trainer(data, ModelCache(detect("cpu")), evaluation=False)
        self._references = References(out, lambda: {})

    def train(self, number: int, adapter: Tensors, seed: int) -> TrainedTask:
        """Train from a version; `number` is that of the round."""
        task = self._task(number, seed)
        found = self._trainer.train(task, self._base, adapter, self._references, lambda _: True)
        assert found is not None  # no step abandons it
        return found

    def _task(self, number: int, seed: int) -> TrainTask:
        run, config, phase = self._run, self._run.config, self._run.config.phase[0]
        return TrainTask(
            task_id=f"{self._site}-{number}",
            attempt=1,
            run=run.run_id,
            client_id=self._site,
            phase=0,
            objective=phase.objective,
            training=LocalTraining(
                steps=phase.local_steps,
                epochs=phase.local_epochs,
                batch_size=phase.batch_size,
                lr=phase.lr,
                max_grad_norm=phase.max_grad_norm,
                prox_mu=phase.prox_mu,
                max_length=config.model.max_length,
                logit_adjustment=phase.logit_adjustment,
            ),
            base=run.base,
            base_version=number - 1,
            adapter=BlobRef(sha256="0" * 64, nbytes=0),
            lora=config.model.lora,
            labels=run.labels,
            layout=run.layout,
            precision=config.model.precision,
            holdout_budget=config.evaluation.budget,
            update_codec="fp32",
            seed=seed,
            issued_at=time.time(),
            deadline_s=config.schedule.task_deadline_s,
        )


def seed_of(site: str, number: int) -> int:
    """Return the seed of a site's task of a round."""
    return int.from_bytes(hashlib.sha256(f"{site}-{number}".encode()).digest()[:4])


def serve(connection: Connection, trainer: SiteTrainer, site: str, seed: int | None) -> None:
    """Answer one request: a version in, the site's version after training out."""
    with np.load(io.BytesIO(connection.recv_bytes())) as request:
        adapter = {name: request[name] for name in request.files}
    number = int(adapter.pop("round"))
    begun = time.monotonic()
    found = trainer.train(number, adapter, seed_of(site, number) if seed is None else seed)
    local = {name: adapter[name] + found.delta[name] for name in adapter}
    answer = io.BytesIO()
    np.savez(answer, **local, samples=found.stats.num_samples, loss=found.stats.avg_loss)
    connection.send_bytes(answer.getvalue())
    print(
        f"{time.strftime('%H:%M:%S')} round {number}: {found.stats.steps} steps,"
        f" loss {found.stats.avg_loss:.3f}, {time.monotonic() - begun:.1f} s",
        flush=True,
    )


def main() -> None:
    run, base, site, rows, socket, step_s, *seed = sys.argv[1:]
    pace.install(float(step_s))
    out = Path(socket).with_suffix(".rows")
    out.mkdir(exist_ok=True)
    trainer = SiteTrainer(read_run(Path(run)), Path(base), site, Path(rows), out)
    with Listener(f"{socket}.new", family="AF_UNIX") as listener:
        Path(f"{socket}.new").rename(socket)  # it exists once it can be used
        while True:
            try:
                with listener.accept() as connection:
                    serve(connection, trainer, site, int(seed[0]) if seed else None)
            except (EOFError, ConnectionError) as error:  # the ClientApp was ended
                print(f"request given up: {error!r}", flush=True)


if __name__ == "__main__":
    main()
