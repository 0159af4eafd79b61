"""What coordinator and workers share: errors, configuration, records, wire format and store."""
