"""Reverse transfer: does a FIM hold what it was measured for? Fine-tune on something unrelated, then look back at the SSL task.

The check of Ovsianas et al. (2022, arXiv 2210.16365), as a curve: target accuracy against what is left of the pre-training,
for EWC with every conditioning of the Fisher and for the controls L2-SP, a shuffled Fisher and a low learning rate.
"""
