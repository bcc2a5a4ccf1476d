"""The actor against Acme's own, and how it comes by its parameters."""

import queue
import threading

import dm_env
import jax
import numpy as np
import pytest

import acme_qsm
from acme_qsm.agents.actor import Actor
from acme_qsm.agents.actor import VariableClient
from acme_qsm.core import Policy

# What waiting for anything may take, in seconds: far more than it does.
DEADLINE = 60.0


class Source:
  """Numbers its answers, and gives one for each permit.

  Attributes:
    names: what was asked for.
  """

  def __init__(self, permits=1000):
    self.names = []
    self.permits = threading.Semaphore(permits)
    self.errors = queue.SimpleQueue()
    self._num_answers = 0

  def get_variables(self, names):
    self.names.append(tuple(names))
    assert self.permits.acquire(timeout=DEADLINE)
    if not self.errors.empty():
      raise self.errors.get()
    self._num_answers += 1
    return [np.full(2, self._num_answers, np.float32) for _ in names]


def finish(client):
  """Waits for what the client has asked for."""
  client._request.exception(DEADLINE)


@pytest.mark.acme
@pytest.mark.parametrize("evaluation", [False, True])
@pytest.mark.parametrize("make_key", [jax.random.PRNGKey, jax.random.key])
def test_actions_are_those_of_acmes_actor(
  make_spec, make_config, evaluation, make_key
):
  import acme_qsm.acme_compat  # isort: skip

  from acme import core
  from acme.agents.jax import actor_core
  from acme.agents.jax import actors
  from acme.jax import variable_utils

  config = make_config(num_action_candidates=3, num_evaluation_candidates=3)
  networks = acme_qsm.make_networks(make_spec(), config)
  learner_core = acme_qsm.make_learner_core(networks, config)
  state = learner_core.init(jax.random.key(3))
  # As if something was learnt: the first actions are random ones.
  params = learner_core.policy_params(state._replace(steps=state.steps + 1))

  class Learner(core.VariableSource):
    def get_variables(self, names):
      return [params for _ in names]

  policy = acme_qsm.make_policy(networks, config, evaluation)
  client = VariableClient(Learner(), "policy")
  ours = Actor(policy, [make_key(7)], client)
  acmes = actors.GenericActor(
    actor_core.batched_feed_forward_to_actor_core(policy),
    make_key(7),
    variable_utils.VariableClient(Learner(), "policy"),
  )
  rng = np.random.default_rng(0)
  for _ in range(2):
    for actor in (ours, acmes):
      actor.observe_first(dm_env.restart(np.zeros(2, np.float32)))
    for _ in range(10):
      observation = rng.normal(size=2).astype(np.float32)
      found, expected = (
        actor.select_action(observation) for actor in (ours, acmes)
      )
      assert found.dtype == expected.dtype == np.float32
      assert found.shape == (1,)
      np.testing.assert_array_equal(found, expected)


@pytest.fixture(scope="module")
def policy_and_params(make_spec, make_config):
  config = make_config()
  networks = acme_qsm.make_networks(make_spec(), config)
  core = acme_qsm.make_learner_core(networks, config)
  params = core.policy_params(core.init(jax.random.key(3)))
  return acme_qsm.make_policy(networks, config), params


class Answer:
  """Has the same parameters at all times."""

  def __init__(self, params):
    self._params = params

  def get_variables(self, names):
    return [self._params for _ in names]


def test_a_batch_of_environments_is_acted_for_at_once(policy_and_params):
  policy, params = policy_and_params
  actor = Actor(
    policy,
    [jax.random.key(0)],
    VariableClient(Answer(params), "policy"),
  )
  actor.observe_first(dm_env.restart(np.zeros(2, np.float32)))
  (actions,) = actor.select_actions([np.zeros((5, 2), np.float32)])
  assert actions.shape == (5, 1)
  # Each its own, and other ones with the next key.
  assert len(np.unique(actions)) == 5
  (others,) = actor.select_actions([np.zeros((5, 2), np.float32)])
  assert not np.intersect1d(actions, others).size


def test_each_of_several_seeds_acts_as_it_does_alone(policy_and_params):
  policy, params = policy_and_params
  # As if something was learnt: the first actions are random ones.
  params = params._replace(steps=params.steps + 1)
  all_params = [params, jax.tree.map(lambda x: 2 * x, params)]
  stacked = jax.tree.map(lambda *x: np.stack(x), *all_params)
  keys = [jax.random.key(seed) for seed in range(2)]
  together = Actor(
    policy, keys, VariableClient(Answer(stacked), "policy", num_seeds=2)
  )
  alone = [
    Actor(policy, [key], VariableClient(Answer(each), "policy"))
    for key, each in zip(keys, all_params, strict=True)
  ]
  rng = np.random.default_rng(0)
  first = dm_env.restart(np.zeros(2, np.float32))
  # Not always both, nor in as many environments; episodes begin in between.
  for nums, begins in (
    *(((2, 1), (0, 1)), ((0, 2), ()), ((1, 0), ()), ((2, 2), (1,))),
    *(((1, 0), ()), ((0, 1), (1,)), ((2, 2), (0,))),
  ):
    observations = [rng.normal(size=(n, 2)).astype(np.float32) for n in nums]
    # Integers and others alike.
    observations[1] = np.rint(3 * observations[1]).astype(int)
    for seed in begins:
      together.observe_first(first, seed)
      alone[seed].observe_first(first)
    found = together.select_actions(observations)
    for actor, own, actions in zip(alone, observations, found, strict=True):
      assert actions.shape == (len(own), 1)
      if len(own):
        np.testing.assert_allclose(
          actions, actor.select_actions([own])[0], atol=1e-5
        )


def test_what_happens_is_recorded():
  calls = []

  class Recorder:
    def add_first(self, timestep):
      calls.append(timestep)

    def add(self, action, next_timestep):
      calls.append((action, next_timestep))

  actor = Actor(
    Policy(lambda params, key, x: (x * params, {}), False),
    [jax.random.key(0)],
    VariableClient(Source(), "policy"),
    [[Recorder()]],
  )
  first = dm_env.restart(np.ones(2, np.float32))
  then = dm_env.transition(1.0, np.zeros(2, np.float32))
  actor.observe_first(first)
  action = actor.select_action(first.observation)
  actor.observe(action, then)
  assert calls[0] is first
  assert calls[1][0] is action
  assert calls[1][1] is then


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_what_a_policy_gives_beside_its_action_is_recorded_with_it(num_seeds):
  calls = {}

  class Recorder:
    def __init__(self, *where):
      self._where = where

    def add_first(self, timestep):
      pass

    def add(self, action, next_timestep, extras=()):
      calls[self._where] = (action, extras)

  def act(params, key, observations):
    extras = {
      "sum": observations.sum(axis=-1),
      "number": (100 * observations).astype(np.int32),
    }
    return observations + params.sum(), extras

  class Zeros:
    def get_variables(self, names):
      return [np.zeros((num_seeds, 2)[num_seeds == 1 :], np.float32)]

  actor = Actor(
    Policy(act, False),
    [jax.random.key(seed) for seed in range(num_seeds)],
    VariableClient(Zeros(), "policy", num_seeds=num_seeds),
    [[Recorder(seed, i) for i in range(3)] for seed in range(num_seeds)],
  )
  observations = np.random.default_rng(0).normal(size=(num_seeds, 3, 2))
  for seed in range(num_seeds):
    actor.observe_first(dm_env.restart(observations[seed, 0]), seed)
  actions = actor.select_actions(list(observations))
  then = dm_env.transition(1.0, observations[0, 0])
  for seed in range(num_seeds):
    for i in range(3):
      actor.observe(actions[seed][i], then, seed, i)
      action, extras = calls[seed, i]
      observation = observations[seed, i].astype(np.float32)
      np.testing.assert_allclose(action, observation)
      assert set(extras) == {"sum", "number"}
      np.testing.assert_allclose(extras["sum"], observation.sum(), rtol=1e-5)
      assert extras["number"].dtype == np.int32
      np.testing.assert_array_equal(
        extras["number"], (100 * observation).astype(np.int32)
      )


def test_who_waits_has_the_newest_at_every_period():
  source = Source()
  client = VariableClient(source, "policy", update_period=3)
  # Who never asked has the first at once.
  assert client.params[0] == 1
  for _ in range(2):
    client.update(wait=True)
  assert client.params[0] == 1
  client.update(wait=True)
  assert client.params[0] == 2
  for _ in range(3):
    client.update(wait=True)
  assert client.params[0] == 3
  assert set(source.names) == {("policy",)}


def test_who_does_not_wait_goes_on_with_the_old():
  source = Source(permits=1)
  client = VariableClient(source, "policy")
  assert client.params[0] == 1
  # One request, as long as there is no answer.
  for _ in range(5):
    client.update()
    assert client.params[0] == 1
  source.permits.release()
  finish(client)
  # Taken over without being asked.
  assert client.params[0] == 2
  source.permits.release()
  client.update()
  finish(client)
  assert client.params[0] == 3
  assert len(source.names) == 3


def test_a_request_under_way_is_not_made_twice():
  source = Source(permits=0)
  client = VariableClient(source, "policy")
  client.update()
  source.permits.release()
  assert client.params[0] == 1
  assert len(source.names) == 1


def test_who_waits_has_what_was_asked_for_after_a_request_under_way():
  source = Source(permits=0)
  client = VariableClient(source, "policy")
  client.update()
  source.permits.release(2)
  client.update(wait=True)
  assert client.params[0] == 2


@pytest.mark.parametrize("wait", [False, True])
def test_errors_are_the_callers(wait):
  source = Source()
  client = VariableClient(source, "policy")
  assert client.params[0] == 1
  source.errors.put(ConnectionError("gone"))
  if wait:
    with pytest.raises(ConnectionError, match="gone"):
      client.update(wait=True)
  else:
    client.update()
    finish(client)
    with pytest.raises(ConnectionError, match="gone"):
      client.update()
  # And it goes on.
  assert client.params[0] == 1
  client.update(wait=True)
  assert client.params[0] == 2


def test_parameters_are_where_the_policy_runs():
  client = VariableClient(Source(), "policy")
  (device,) = client.params.devices()
  assert device.platform == "cpu"


def test_without_a_cpu_parameters_are_where_jax_puts_them(monkeypatch):
  devices = jax.devices

  def without_cpu(backend=None):
    # What JAX says where JAX_PLATFORMS=cuda.
    if backend == "cpu":
      raise RuntimeError("Unknown backend cpu. Available backends are ['cuda']")
    return devices(backend)

  monkeypatch.setattr(jax, "devices", without_cpu)
  client = VariableClient(Source(), "policy")
  assert client.params.devices() == {devices()[0]}
  policy = Policy(lambda params, key, x: (params + x, {}), False)
  actor = Actor(policy, [jax.random.PRNGKey(0)], client)
  actor.observe_first(dm_env.restart(np.zeros(2, np.float32)))
  action = actor.select_action(np.full(2, 5.0, np.float32))
  np.testing.assert_array_equal(action, [6.0, 6.0])


def test_parameters_that_are_there_are_taken_as_they_are():
  params = {"w": jax.numpy.ones(3), "none": None}

  class Learner:
    def get_variables(self, names):
      return [params for _ in names]

  assert VariableClient(Learner(), "policy").params is params
