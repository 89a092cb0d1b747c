"""Whether this checkout, on this machine, is fit to run the study: one file a theme; `command.py` asks them all."""
