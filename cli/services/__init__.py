"""The command `fccl services`: a private RabbitMQ and Redis."""
