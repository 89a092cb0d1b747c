"""Datasets as steps read them: the packed store, batches, views and augmentation."""
