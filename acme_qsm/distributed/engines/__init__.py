"""The engines that start the processes of a run: Launchpad and Ray.

Belongs here: what one engine alone needs. Does not: what the processes do.
"""
