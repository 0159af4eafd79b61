"""Logic of the coordinator without I/O: a state machine, its state, its events and its actions."""
