"""The plan: which cells to run, with everything each step needs. Imports no torch: engines import it."""

from anchored.plan.load import Plan, load_plan, lookup

__all__ = ["Plan", "load_plan", "lookup"]
