"""Methods: how a policy is learnt, one file each, and their registry.

Belongs here: a method's configuration, its policy loss, what it adds to the
training state, its presets. Does not: what a second method would write again.
"""
