"""Agents in Acme's form: builders, learner and actor over the pure core.

Belongs here: thin classes with Acme's interfaces, which need no Acme, and what
lets Acme's own agents run here. Does not: maths, and what a run does with an
agent.
"""
