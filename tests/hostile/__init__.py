"""Bad archives, each of which breaks one rule: `python -m tests.hostile` opens them all in every way.

A case is refused with one error of our family that names the place, in under a second and under 200 MB.
"""
