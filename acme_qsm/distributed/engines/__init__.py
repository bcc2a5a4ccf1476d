"""Who starts the processes of a run: Launchpad, or Ray.

Belongs here: what one engine alone needs. Does not: what the processes do.
"""
