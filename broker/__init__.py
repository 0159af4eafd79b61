"""Moves bytes and headers reliably, over RabbitMQ or inside one process; knows no records."""
