"""The broker over RabbitMQ."""
