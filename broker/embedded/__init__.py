"""TODO: broker/embedded."""
