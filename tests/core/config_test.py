"""The configuration: what it refuses, and that all of it is used."""

import dataclasses
import inspect
import math
import re
from typing import Any
from typing import Literal

import jax
import numpy as np
import pytest

import acme_qsm
from acme_qsm import configuration
from acme_qsm import methods


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("policy_hidden_sizes", ()),
    ("policy_hidden_sizes", (256, 0)),
    ("critic_hidden_sizes", ()),
    ("critic_hidden_sizes", (-1,)),
    ("time_embedding_size", 0),
    ("time_embedding_size", 63),
    ("time_hidden_size", 0),
    ("num_critics", 0),
    ("num_denoising_steps", 0),
    ("noise_schedule", "sigmoid"),
    ("sampling_temperature", -0.1),
    ("sampling_temperature", math.nan),
    ("score_target", "gradient"),
    ("q_score_scale", 0.0),
    ("q_score_scale", math.inf),
    ("action_gradient_decay", 1.0),
    ("action_gradient_decay", -0.1),
    ("action_gradient_clip", 0.0),
    ("action_gradient_clip", math.inf),
    ("batch_size", 0),
    ("num_sgd_steps_per_step", 0),
    ("policy_learning_rate", 0.0),
    ("policy_learning_rate", math.nan),
    ("critic_learning_rate", -1e-3),
    ("policy_learning_rate_schedule", "exponential"),
    ("policy_learning_rate_end", -1e-5),
    ("policy_learning_rate_steps", 0),
    ("policy_update_period", 0),
    ("policy_update_period", 2.0),
    ("target_update_rate", 0.0),
    ("target_update_rate", 1.1),
    ("discount", -0.1),
    ("discount", 1.01),
    ("discount", math.nan),
    ("reward_scale", 0.0),
    ("target_action_noise", -0.1),
    ("n_step", 0),
    ("exploration_noise", -0.1),
    ("num_action_candidates", 0),
    ("evaluation_temperature", -1.0),
    ("num_evaluation_candidates", 0),
    ("num_target_candidates", 0),
    ("num_atoms", 1),
    ("max_value", -10.0),
    ("max_value", math.inf),
    ("num_quantiles", 0),
    ("critic_body", "resnet"),
    ("critic_head", "gaussian"),
    ("categorical_target", "mean"),
    ("min_replay_size", 0),
    ("min_replay_size", 255),
    ("max_replay_size", 9_999),
    ("samples_per_insert", 0.0),
    ("updates_per_step", 0.0),
    ("samples_per_insert_tolerance", 0.0),
    ("transitions_per_item", 0),
    ("variable_update_period", 0),
    ("normalize_observations", "False"),
    ("normalize_observations", 1),
    ("normalize_observations", None),
    ("discount", np.float32(np.nan)),
    ("action_gradient_clip", np.float64(np.inf)),
    ("min_value", np.float32(-np.inf)),
    ("discount", None),
    ("discount", "0.99"),
    ("discount", True),
    ("min_value", None),
    ("action_gradient_clip", "5"),
    ("policy_hidden_sizes", (256, 256.0)),
    ("policy_hidden_sizes", (True,)),
    ("policy_hidden_sizes", (None,)),
    ("critic_hidden_sizes", ("256",)),
  ],
)
def test_invalid_values(field, value):
  with pytest.raises(
    ValueError, match=rf"QSMConfig\.{field} .*{re.escape(repr(value))}"
  ):
    acme_qsm.QSMConfig(**{field: value})


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("sampling_temperature", 0.0),
    ("evaluation_temperature", 0.0),
    ("exploration_noise", 0.0),
    ("target_action_noise", 0.0),
    ("discount", 0.0),
    ("discount", 1.0),
    ("target_update_rate", 1.0),
    ("action_gradient_decay", 0.0),
    ("action_gradient_clip", None),
    ("action_gradient_clip", np.float32(2.5)),
    ("discount", 1),
    ("num_denoising_steps", 1),
    ("num_critics", 1),
    ("min_replay_size", 256),
    ("max_replay_size", 10_000),
  ],
)
def test_edges_of_the_valid_values(field, value):
  config = acme_qsm.QSMConfig(**{field: value})
  assert getattr(config, field) == value


def test_presets():
  qsm = methods.METHODS["qsm"]
  assert qsm.preset("default") == acme_qsm.QSMConfig()
  with pytest.raises(ValueError, match=r"'oficial'; did you mean official\?"):
    qsm.preset("oficial")
  # Two layers of 256, as the paper says; of 512, as its implementation.
  assert qsm.preset("paper").policy_hidden_sizes == (256, 256)
  assert qsm.preset("official").policy_hidden_sizes == (512, 512)


def test_names_that_are_near_but_for_case():
  with pytest.raises(ValueError, match=r"'QSM'; did you mean qsm\?"):
    configuration.require_known("agent", "QSM", methods.METHODS)
  with pytest.raises(ValueError, match=r"'mine'; did you mean MINE\?"):
    configuration.require_known("agent", "mine", ["MINE", "qsm"])


def test_frozen_and_hashable():
  config = acme_qsm.QSMConfig()
  with pytest.raises(dataclasses.FrozenInstanceError):
    config.discount = 0.5  # pyright: ignore[reportAttributeAccessIssue]
  assert hash(config) == hash(acme_qsm.QSMConfig())
  assert config != acme_qsm.QSMConfig(discount=0.5)


@pytest.mark.parametrize("agent", methods.METHODS)
def test_every_field_is_explained_where_it_is_defined(agent):
  for config_type in methods.METHODS[agent].config.__mro__[:-1]:
    documented = re.findall(
      r"^ {2}(\w+):", inspect.getdoc(config_type) or "", re.MULTILINE
    )
    own = list(vars(config_type).get("__annotations__", {}))
    # Who changes a shared field's default need not explain it again.
    inherited = {
      field for base in config_type.__mro__[1:] for field in _fields_of(base)
    }
    own = [name for name in own if name in documented or name not in inherited]
    assert documented == own, config_type


def _fields_of(config_type):
  return vars(config_type).get("__annotations__", {})


# What is read depends on what is chosen: together, these read all.
CHOICES = {
  "qsm": [
    {"critic_head": "categorical", "normalize_action_gradient": True},
    {"critic_head": "quantile"},
  ],
  "sdac": [
    {"critic_head": "categorical", "temperature_update": "reference_decay"},
    {"critic_head": "quantile", "noisy_action_source": "uniform"},
    {"weights": "normalized_exponential", "temperature_update": "constant"},
  ],
  "idem": [
    {"critic_head": "categorical", "temperature_update": "reference_decay"},
    {"critic_head": "quantile", "noisy_action_source": "uniform"},
  ],
  "dpmd": [
    {"critic_head": "categorical"},
    {
      "critic_head": "quantile",
      "num_policy_samples": 1,
      "weights": "normalized_exponential",
      "temperature_update": "reference_decay",
    },
  ],
  "qvpo": [{"critic_head": "categorical"}, {"critic_head": "quantile"}],
  "dipo": [{"critic_head": "categorical"}, {"critic_head": "quantile"}],
  "gaussian": [{"critic_head": "categorical"}, {"critic_head": "quantile"}],
}


@pytest.mark.parametrize("agent", methods.METHODS)
def test_every_field_of_the_core_is_read(
  environment_spec, make_batch, make_recording_config, monkeypatch, agent
):
  # A field that nothing reads is a promise that nothing keeps. Those of replay
  # are the builder's to read: see agents/builder_test.
  method = methods.METHODS[agent]
  config_type, read = make_recording_config(method.config)
  monkeypatch.setitem(
    methods.METHODS,
    "recording",
    dataclasses.replace(method, config=config_type),
  )
  all_read = set()
  for choices in CHOICES[agent]:
    config = config_type(
      policy_hidden_sizes=(4,),
      critic_hidden_sizes=(4,),
      num_atoms=5,
      num_quantiles=5,
      batch_size=8,
      policy_learning_rate_schedule="linear",
      num_action_candidates=2,
      num_target_candidates=2,
      **choices,
    )
    read.clear()
    networks = acme_qsm.make_networks(environment_spec, config)
    core = acme_qsm.make_learner_core(networks, config)
    state, _ = jax.eval_shape(
      core.step, jax.eval_shape(core.init, jax.random.key(0)), make_batch(0, 8)
    )
    for evaluation in (False, True):
      jax.eval_shape(
        acme_qsm.make_policy(networks, config, evaluation),
        core.policy_params(state),
        jax.random.key(0),
        make_batch(0, 8).observation,
      )
    all_read |= read
  fields = {field.name for field in dataclasses.fields(config_type)}
  if agent == "idem":  # It takes one kind alone, and refuses others.
    fields -= {"weights", "q_value_clip"}
  assert fields - all_read == {
    "batch_size",
    "num_sgd_steps_per_step",
    "n_step",
    "min_replay_size",
    "max_replay_size",
    "updates_per_step",
    "samples_per_insert",
    "samples_per_insert_tolerance",
    "transitions_per_item",
    "variable_update_period",
  }


@dataclasses.dataclass(frozen=True)
class _OfEachType(configuration.Configuration):
  """Has fields of types that no method of today has."""

  name: Literal["a", "b"] | None = None
  flag: Literal[1, 2] = 1
  pair: tuple[int, float] = (1, 0.5)
  many: tuple[float, ...] | None = None
  nested: tuple[Literal["a"] | None, ...] = ()
  either: int | bool = 1
  anything: Any = None


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("name", "c", r"name must be in \('a', 'b'\) or None, got 'c'"),
    ("name", 1, r"name must be in \('a', 'b'\) or None, got 1"),
    ("name", ["a"], r"name must be in \('a', 'b'\) or None, got \['a'\]"),
    ("flag", True, r"flag must be in \(1, 2\), got True"),
    ("flag", None, r"flag must be in \(1, 2\), got None"),
    ("pair", (1, 0.5, 2), r"pair must be a tuple of 2, got \(1, 0.5, 2\)"),
    ("pair", [1, 0.5], r"pair must be a tuple, got \[1, 0.5\]"),
    ("pair", (1.0, 0.5), "pair must be a tuple whose part 0 is an integer"),
    ("pair", (1, "x"), "pair must be a tuple whose part 1 is a number"),
    ("many", (0.5, math.nan), "many .* whose part 1 is finite or None, got"),
    ("many", 0.5, "many must be a tuple or None, got 0.5"),
    ("nested", ("a", "b"), r"nested .* part 1 is in \('a',\) or None, got"),
    ("either", 0.5, "either must be an integer or True or False, got 0.5"),
  ],
)
def test_every_type_of_a_field_is_checked(field, value, message):
  with pytest.raises(ValueError, match=rf"^_OfEachType\.{message}"):
    _OfEachType(**{field: value})


def test_values_of_every_type_are_taken():
  config = _OfEachType(
    name="b",
    flag=2,
    pair=(3, 1),
    many=(1, np.float32(2.5)),
    nested=("a", None),
    either=False,
    anything=object(),
  )
  assert config.pair == (3, 1)
  assert _OfEachType(many=()).many == ()
