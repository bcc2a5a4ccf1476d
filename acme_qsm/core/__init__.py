"""What all methods share: configuration, the actor-critic step, acting.

Belongs here: pieces that two methods or more need, as pure functions that can
be called by themselves. Does not: a method's name, or an option that only one
method reads.
"""
