"""A first configuration for a dataset: what lies in a folder, and what to write for it."""
