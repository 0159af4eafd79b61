"""Messages of the sites: their queues, and the conversion into events for the core."""
