"""ClientApp: passes a version on to the trainer of its site, and its answer back."""

import io
from multiprocessing.connection import Client

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train one pass over the rows of the site."""
    arrays = message.content["arrays"]
    request = io.BytesIO()
    tensors = {name: array.numpy() for name, array in arrays.items()}
    np.savez(request, round=message.content["config"]["server-round"], **tensors)
    with Client(str(context.node_config["socket"]), family="AF_UNIX") as trainer:
        trainer.send_bytes(request.getvalue())
        with np.load(io.BytesIO(trainer.recv_bytes())) as file:
            answer = {name: file[name] for name in file.files}
    metrics = {"num-examples": int(answer.pop("samples")), "loss": float(answer.pop("loss"))}
    content = {
        "arrays": ArrayRecord({name: Array(value) for name, value in answer.items()}),
        "metrics": MetricRecord(metrics),
    }
    return Message(content=RecordDict(content), reply_to=message)
