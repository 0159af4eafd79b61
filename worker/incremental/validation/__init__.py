"""External validator, which may reject what passed the gate."""
