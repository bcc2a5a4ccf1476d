"""Acme's own agents from flags: what reaches Acme, and what does not."""

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import dataclasses
import functools
import inspect

import cloudpickle
import jax
import numpy as np
import pytest
from acme import specs
from acme.agents.jax import sac
from acme.agents.jax import td3

from acme_qsm.agents import acme as acme_agents
from acme_qsm.agents.acme import AcmeSACConfig
from acme_qsm.agents.acme import AcmeTD3Config

pytestmark = pytest.mark.acme

AGENTS = [
  (AcmeSACConfig, sac.SACConfig, sac.make_networks),
  (AcmeTD3Config, td3.TD3Config, td3.make_networks),
]
# Each is another than by default.
FIELDS = {
  "hidden_layer_sizes": (8, 4),
  "batch_size": 7,
  "num_sgd_steps_per_step": 2,
  "discount": 0.5,
  "n_step": 3,
  "min_replay_size": 50,
  "max_replay_size": 60,
  "samples_per_insert": 14.0,
  "samples_per_insert_tolerance_rate": 0.3,
}
SAC_FIELDS = {
  **FIELDS,
  "learning_rate": 1e-3,
  "reward_scale": 2.0,
  "target_entropy": -1.0,
  "tau": 0.1,
}
TD3_FIELDS = {
  **FIELDS,
  "policy_learning_rate": 1e-3,
  "critic_learning_rate": 2e-3,
  "policy_gradient_clipping": 1.0,
  "sigma": 0.3,
  "target_sigma": 0.4,
  "noise_clip": 0.6,
}


@pytest.mark.parametrize(("ours", "acmes", "make_networks"), AGENTS)
def test_defaults_are_acmes(ours, acmes, make_networks):
  config = dataclasses.asdict(ours())
  sizes = inspect.signature(make_networks).parameters["hidden_layer_sizes"]
  assert config.pop("hidden_layer_sizes") == sizes.default
  expected = dataclasses.asdict(acmes())
  assert config == {name: expected[name] for name in config}
  left_out = {"replay_table_name", "prefetch_size"}
  if acmes is td3.TD3Config:
    left_out |= {"delay", "tau"}
  assert expected.keys() - config.keys() == left_out


@pytest.mark.parametrize(
  ("config", "expected"),
  [
    (AcmeSACConfig(**SAC_FIELDS), sac.SACConfig),
    (
      AcmeSACConfig(entropy_coefficient=0.2, target_entropy=0.0),
      sac.SACConfig,
    ),
    (AcmeTD3Config(**TD3_FIELDS), td3.TD3Config),
  ],
)
def test_every_setting_reaches_acme(config, expected, make_spec):
  builder = acme_agents.AcmeAgentBuilder(config)
  networks = acme_agents.make_networks(make_spec(), config)
  params = networks.policy_network.init(jax.random.PRNGKey(0))
  widths = {leaf.shape[-1] for leaf in jax.tree.leaves(params)}
  assert widths == {*config.hidden_layer_sizes, 1}
  # All that Acme's builder is told.
  (table,) = builder.make_replay_tables(make_spec())
  assert table.info.max_size == config.max_replay_size
  found = builder._builder.config["config"]
  assert type(found) is expected
  fields = dataclasses.asdict(config)
  del fields["hidden_layer_sizes"]
  assert found == expected(**fields)


def test_td3s_learner_is_not_told_what_is_no_flag(monkeypatch, make_spec):
  told = {}

  class Learner(td3.TD3Learner):
    def __init__(self, *args, **kwargs):
      told.update(
        inspect.signature(super().__init__).bind(*args, **kwargs).arguments
      )
      super().__init__(*args, **kwargs)

  monkeypatch.setattr("acme.agents.jax.td3.learning.TD3Learner", Learner)
  config = AcmeTD3Config(**TD3_FIELDS)
  networks = acme_agents.make_networks(make_spec(), config)
  acme_agents.AcmeAgentBuilder(config).make_learner(
    jax.random.PRNGKey(0), networks, iter(())
  )
  assert told["discount"] == 0.5
  assert told["target_sigma"] == 0.4
  assert not {"delay", "tau"} & told.keys()
  defaults = inspect.signature(td3.TD3Learner.__init__).parameters
  assert (defaults["delay"].default, defaults["tau"].default) == (2, 0.005)


def _make_policies(config, spec, key):
  """Who explores and who evaluates: (key, observations) -> actions."""
  builder = acme_agents.AcmeAgentBuilder(config)
  networks = acme_agents.make_networks(spec, config)
  params = networks.policy_network.init(key)
  return [
    functools.partial(builder.make_policy(networks, spec, evaluation), params)
    for evaluation in (False, True)
  ]


def test_td3_explores_with_noise_and_evaluates_without(make_spec):
  spec = make_spec(actions=specs.BoundedArray((3,), np.float32, -1.0, 1.0))
  keys = jax.random.split(jax.random.PRNGKey(0), 4)
  observations = jax.random.normal(keys[0], (1000, 2))
  config = AcmeTD3Config(sigma=0.05)
  explore, evaluate = _make_policies(config, spec, keys[1])
  actions = evaluate(keys[2], observations)
  np.testing.assert_array_equal(actions, evaluate(keys[3], observations))
  noise = np.asarray(explore(keys[2], observations) - actions)
  # Of 3000 draws; near zero at first, actions are far from where noise is cut.
  assert abs(noise.mean()) < 5 * 0.05 / np.sqrt(3000)
  assert noise.std() == pytest.approx(0.05, rel=5 / np.sqrt(2 * 3000))


def test_sac_explores_and_evaluates_by_the_mode(make_spec):
  keys = jax.random.split(jax.random.PRNGKey(0), 4)
  observations = jax.random.normal(keys[0], (1000, 2))
  explore, evaluate = _make_policies(AcmeSACConfig(), make_spec(), keys[1])
  actions = evaluate(keys[2], observations)
  np.testing.assert_array_equal(actions, evaluate(keys[3], observations))
  drawn = explore(keys[2], observations)
  assert np.std(drawn - explore(keys[3], observations)) > 0.1
  assert np.all(np.abs(drawn) <= 1.0)


@pytest.mark.parametrize("is_made", [False, True])
def test_goes_to_other_processes(make_spec, is_made):
  builder = acme_agents.AcmeAgentBuilder(AcmeTD3Config(**TD3_FIELDS))
  if is_made:
    builder.make_replay_tables(make_spec())
  copy = cloudpickle.loads(cloudpickle.dumps(builder))
  assert (copy.agent, copy.config) == (builder.agent, builder.config)
  (table,) = copy.make_replay_tables(make_spec())
  assert table.info.max_size == 60
  with pytest.raises(AttributeError, match="no_such_thing"):
    _ = copy.no_such_thing


@pytest.mark.parametrize(
  ("config", "fields", "message"),
  [
    (AcmeSACConfig, {"tau": 0.0}, r"AcmeSACConfig\.tau must be in \(0, 1\]"),
    (AcmeSACConfig, {"discount": 1.5}, r"discount must be in \[0, 1\]"),
    (AcmeSACConfig, {"learning_rate": 0.0}, "learning_rate must be positive"),
    (
      AcmeSACConfig,
      {"entropy_coefficient": 0.1, "target_entropy": -1.0},
      r"target_entropy must be 0 where .*, got -1\.0",
    ),
    (AcmeTD3Config, {"sigma": -0.1}, r"AcmeTD3Config\.sigma must be at least"),
    (AcmeTD3Config, {"hidden_layer_sizes": ()}, "one or more positive widths"),
    (
      AcmeTD3Config,
      {"max_replay_size": 999},
      "max_replay_size must be at least min_replay_size=1000, got 999",
    ),
  ],
)
def test_wrong_settings(config, fields, message):
  with pytest.raises(ValueError, match=message):
    config(**fields)


@pytest.mark.parametrize(
  ("samples_per_insert", "least"), [(256.0, 0.125), (0.5, 0.25)]
)
def test_the_least_tolerance_is_reverbs(make_spec, samples_per_insert, least):
  fields = {"min_replay_size": 8, "samples_per_insert": samples_per_insert}
  config = AcmeSACConfig(samples_per_insert_tolerance_rate=least, **fields)
  acme_agents.AcmeAgentBuilder(config).make_replay_tables(make_spec())
  less = 0.99 * least
  with pytest.raises(ValueError, match=f"rate must be at least {least} for"):
    AcmeSACConfig(samples_per_insert_tolerance_rate=less, **fields)
  refused = sac.SACConfig(samples_per_insert_tolerance_rate=less, **fields)
  with pytest.raises(ValueError, match="error_buffer"):
    sac.SACBuilder(refused).make_replay_tables(make_spec())


@pytest.mark.parametrize("config", [AcmeSACConfig(), AcmeTD3Config()])
def test_what_they_cannot_act_in(make_spec, config):
  spec = make_spec(observations={"position": specs.Array((2,), np.float32)})
  with pytest.raises(ValueError, match="FloatObservations"):
    acme_agents.make_networks(spec, config)
