"""Backbones: from a plan entry to a module without a classifier, its checkpoint on disk, heads and features."""
