"""TODO: common/tls."""
