"""Parts of benchmarks/scale.py: what is measured, and how it is shown."""
