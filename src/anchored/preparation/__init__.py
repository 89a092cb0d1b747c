"""Preparation of a dataset: from what a reader finds, or what is drawn here, to a packed store."""
