"""Publishing to the store: status, adapters, receipts, and the base model on request."""
