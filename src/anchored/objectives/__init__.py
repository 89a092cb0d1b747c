"""SSL losses as pure functions: tensors in, one value per image out. No trainer inside."""
