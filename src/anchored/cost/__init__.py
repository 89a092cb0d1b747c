"""What a plan will cost before anything of it runs: seconds, hours, bytes.

    seconds of a job = sum over what it does of (amount / rate of the device)

Amounts (`work.py`) follow from the plan: operations of the network counted by torch on shapes alone (`flops.py`), images of the
datasets (`images.py`), bytes read and saved. Rates (`throughput.yaml`) follow from a device; each says where it comes from, and
`calibrate.py` replaces them by what finished steps recorded. Costs are sums over jobs, so any part of a plan costs its part.
"""
