"""Reliable transport of bytes and headers, over RabbitMQ or within one process."""
