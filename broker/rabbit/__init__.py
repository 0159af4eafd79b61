"""TODO: broker/rabbit."""
