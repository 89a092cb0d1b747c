"""Datasets: readers that make them, the packed store that holds them, groups, splits and batches."""
