"""From stored per-image predictions to numbers: group metrics, model selection, paired intervals.

Nothing here trains or loads a model; everything is a function of the plan and of `predictions.parquet` files.
"""
