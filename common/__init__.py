"""What both sides agree on: errors, configuration, records, wire format, codec and store."""
