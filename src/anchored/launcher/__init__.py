"""`anchored run`: Snakemake, watched. Whatever it does can be typed without it; it knows what to type when something broke.

launch.py      the order of things: clear the ground, run, continue after a breakdown, say what failed
owner.py       who runs in this folder, and whether Snakemake's lock is stale
queue.py       what SLURM's queue holds of this folder
leftovers.py   jobs and results that an earlier run left behind
engine.py      Snakemake as a child process: its signals, its end
watchdog.py    when silence means that it hangs
story.py       what Snakemake's log says: failures, and the sentences of their own logs
"""
