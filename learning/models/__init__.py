"""Models: base models by name, loading, LoRA adapters, and export."""
