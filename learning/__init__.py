"""Machine learning without queues: models, adapters, data, objectives, local loop, evaluation."""
