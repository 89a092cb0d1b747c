"""anchored: fine-tune self-supervised vision backbones without losing the worst group."""

__version__ = "0.1.0"
