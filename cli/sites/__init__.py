"""Commands for invited sites: invitations, their end, and TLS certificates."""
