"""`anchored fetch SOURCE`: datasets and weights by name, from a reviewed table, checked before anything reads them.

`sources.yaml` says what there is; `step` brings one source into its folder; others read what provenance.py tells of it.
"""
