"""The adders against Acme's, through real Reverb."""

import acme_qsm.acme_compat  # isort: skip

import dm_env
import numpy as np
import pytest
from acme import specs
from acme.adders import reverb as acme_adders

import acme_qsm
from acme_qsm import environments
from acme_qsm.replay.adder import TransitionAdder
from acme_qsm.replay.codec import TransitionCodec
from acme_qsm.replay.embedded import EmbeddedReplay
from acme_qsm.replay.pacing import Pace
from acme_qsm.replay.reverb_adder import ReverbAdder
from acme_qsm.replay.reverb_tables import make_signature
from acme_qsm.replay.reverb_tables import TABLE
from tests.replay.contents import make_queue
from tests.replay.contents import take_all

pytestmark = pytest.mark.acme


@pytest.fixture(scope="module")
def real_episode():
  """25 steps of a real task: [(action, time step)], the first without action.

  In the middle one step discounts, so that the product of discounts shows.
  """
  environment = environments.make("cartpole:swingup", seed=3)
  rng = np.random.default_rng(0)
  steps = [(None, environment.reset())]
  for _ in range(25):
    action = rng.uniform(-1, 1, environment.action_spec().shape)
    action = action.astype(np.float32)
    steps.append((action, environment.step(action)))
  action, timestep = steps[10]
  steps[10] = (action, timestep._replace(discount=np.float32(0.75)))
  return specs.make_environment_spec(environment), steps


@pytest.mark.parametrize(
  ("n_step", "last_discount"), [(1, 1.0), (3, 1.0), (3, 0.0), (40, 0.0)]
)
def test_a_real_episode_gives_the_transitions_of_acmes_adder(
  serve, real_episode, n_step, last_discount
):
  spec, steps = real_episode
  action, timestep = steps[-1]
  last = timestep._replace(
    step_type=dm_env.StepType.LAST, discount=np.float32(last_discount)
  )
  steps = [*steps[:-1], (action, last)]
  codec = TransitionCodec(spec)
  client = serve(
    make_queue(TABLE, make_signature(codec)),
    make_queue("acme", acme_adders.NStepTransitionAdder.signature(spec)),
  )
  acme_adder = acme_adders.NStepTransitionAdder(
    client, n_step, 0.9, priority_fns={"acme": None}
  )
  adder = ReverbAdder(client, codec, n_step=n_step, discount=0.9)
  replay = EmbeddedReplay(codec.size, 1_000, Pace(1.0, 1, 0.0, 1.0))
  embedded_adder = TransitionAdder(
    replay.insert, codec, n_step=n_step, discount=0.9
  )
  for each in (acme_adder, adder, embedded_adder):
    each.add_first(steps[0][1])
    for action, timestep in steps[1:]:
      each.add(action, timestep)
  acme_adder.reset()
  adder.flush()

  theirs = [
    codec.pack(acme_qsm.Transition(*data[:5]))
    for data in take_all(client, "acme")
  ]
  ours = take_all(client, TABLE)
  np.testing.assert_array_equal(replay.rows(), ours)
  num_steps = len(steps) - 1
  assert len(theirs) == num_steps + min(n_step, num_steps) - 1
  theirs, ours = sort_rows(theirs, spec), sort_rows(ours, spec)
  assert ours.shape == theirs.shape
  np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=0.0)


def sort_rows(rows, spec):
  """Sorts by what is no result of arithmetic: the observations."""
  (size,) = spec.observations.shape
  rows = np.stack(rows)
  return rows[np.lexsort((*rows[:, :size].T, *rows[:, -size:].T))]
