"""Publishable FIMs: a folder that says what it is, checks itself, and loads with five lines."""
