"""What methods are made of, as pure functions that can be called alone.

Belongs here: what a method and a learner are (`method`, `learner_core`); the
pieces of learners (`critics`, `actions`, `updates`, `temperature`, `weights`,
`normalization`) and the off-policy actor-critic that is made of them
(`actor_critic`, `training`); denoisers as policies (`sampling`, `denoising`,
`reverse_sampling`); acting. Does not: a method's name, or an option that only
one method reads.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
