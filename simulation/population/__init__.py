"""Virtual clients: speed, network, availability and faults, from settings or a trace file."""
