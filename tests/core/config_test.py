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

NAN, INF = math.nan, math.inf
LOG_16 = math.log(16)
CONSTANT = {"temperature_update": "constant"}
DECAYS = {"temperature_update": "reference_decay"}
OF_TARGET_KL = {"temperature_update": "target_kl"}
# By method: a field, values that it cannot have, and what else is said.
REFUSED = [
  *(("qsm", field, [0]) for field in (
      "time_hidden_size", "num_critics", "num_denoising_steps", "batch_size",
      "num_sgd_steps_per_step", "policy_learning_rate_steps", "n_step",
      "num_action_candidates", "num_target_candidates", "num_quantiles",
      "transitions_per_item", "variable_update_period",
  )),
  *(("qsm", field, [0.0]) for field in (
      "reward_scale", "samples_per_insert", "updates_per_step",
      "samples_per_insert_tolerance",
  )),
  ("qsm", "policy_hidden_sizes", [(), (256, 0), (256, 256.0), (True,)]),
  ("qsm", "policy_hidden_sizes", [(None,)]),
  ("qsm", "critic_hidden_sizes", [(), (-1,), ("256",)]),
  ("qsm", "time_embedding_size", [0, 63]),
  ("qsm", "noise_schedule", ["sigmoid"]),
  ("qsm", "sampling_temperature", [-0.1, NAN]),
  ("qsm", "score_target", ["gradient"]),
  ("qsm", "q_score_scale", [0.0, INF]),
  ("qsm", "action_gradient_decay", [1.0, -0.1]),
  ("qsm", "action_gradient_clip", [0.0, INF, np.float64(INF), "5"]),
  ("qsm", "policy_learning_rate", [0.0, NAN]),
  ("qsm", "critic_learning_rate", [-1e-3]),
  ("qsm", "policy_learning_rate_schedule", ["exponential"]),
  ("qsm", "policy_learning_rate_end", [-1e-5]),
  ("qsm", "policy_update_period", [0, 2.0]),
  ("qsm", "target_update_rate", [0.0, 1.1]),
  ("qsm", "discount", [-0.1, 1.01, NAN, np.float32(NAN), None, "0.99", True]),
  ("qsm", "target_action_noise", [-0.1]),
  ("qsm", "exploration_noise", [-0.1]),
  ("qsm", "evaluation_temperature", [-1.0]),
  ("qsm", "num_evaluation_candidates", [0, -1]),
  ("qsm", "num_atoms", [1]),
  ("qsm", "min_value", [np.float32(-INF), None]),
  ("qsm", "max_value", [-10.0, INF]),
  ("qsm", "critic_body", ["resnet"]),
  ("qsm", "critic_hidden_sizes", [(16, 8)], {"critic_body": "simba"}),
  ("qsm", "critic_head", ["gaussian"]),
  ("qsm", "categorical_target", ["mean"]),
  ("qsm", "min_replay_size", [0, 255]),
  ("qsm", "max_replay_size", [9_999]),
  ("qsm", "normalize_observations", ["False", 1, None]),
  ("sdac", "num_reverse_samples", [0, -1, 2.0]),
  # One weight is always 1.
  ("sdac", "num_reverse_samples", [1], CONSTANT),
  # No weights diverge by more than log K, nor by as much but one of them.
  ("sdac", "target_kl", [0.0, NAN, LOG_16 + 1e-6, LOG_16]),
  ("sdac", "target_kl", [1.0], {"num_reverse_samples": 2}),
  # Weights that need not sum to one have no divergence.
  ("sdac", "temperature_update", ["target_kl"], {"weights": "exponential"}),
  (
    *("sdac", "temperature_update", ["target_kl"]),
    {"weights": "normalized_exponential"},
  ),
  ("sdac", "boltzmann_temperature", [0.0, INF]),
  ("sdac", "boltzmann_temperature", [0.01], {"min_temperature": 0.1}),
  ("sdac", "min_temperature", [0.0]),
  ("sdac", "temperature_learning_rate", [0.0]),
  ("sdac", "temperature_update_period", [0]),
  ("sdac", "temperature_update", ["decay"]),
  ("sdac", "weights", ["softmax"]),
  ("sdac", "reverse_sampling", ["bounded"]),
  ("sdac", "noisy_action_source", ["prior"]),
  ("sdac", "noisy_action_scale", [0.0]),
  ("sdac", "exploration_noise", [0.0], DECAYS),
  ("sdac", "beta_start", [0.0]),
  ("sdac", "sampler", ["ddim"]),
  ("sdac", "sampling_start_scale", [-1.0]),
  ("idem", "weights", ["exponential"]),
  ("dpmd", "num_policy_samples", [1], CONSTANT),
  ("dpmd", "target_kl", [1.5], {"num_policy_samples": 4}),
  ("qvpo", "num_policy_samples", [1]),
  ("qvpo", "num_random_actions", [-1]),
  ("qvpo", "random_action_weight", [-0.1]),
  ("qvpo", "random_action_weight_end", [-0.1]),
  ("qvpo", "random_action_steps", [0]),
  ("dipo", "num_action_moves", [0]),
  ("dipo", "action_learning_rate", [0.0]),
  ("gaussian", "entropy_temperature", [0.0]),
  ("gaussian", "entropy_temperature_learning_rate", [-1.0]),
  # No policy on the box has more than the uniform one.
  ("gaussian", "target_entropy", [None, math.log(2.0)]),
  ("gaussian", "entropy_in_target", [1]),
]  # fmt: skip


@pytest.mark.parametrize(
  ("method", "field", "values", "others"), [(*row, {})[:4] for row in REFUSED]
)
def test_invalid_values(method, field, values, others):
  config_type = methods.METHODS[method].config
  for value in values:
    with pytest.raises(
      ValueError,
      match=rf"^{config_type.__name__}\.{field} .*{re.escape(repr(value))}",
    ):
      config_type(**{field: value, **others})


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"beta_start": 0.5, "noise_schedule": "cosine"}, "has no bounds"),
    ({"beta_end": 1.5, "noise_schedule": "linear"}, "beta_end must be below 1"),
  ],
)
def test_bounds_that_a_schedule_cannot_have(fields, message):
  with pytest.raises(ValueError, match=rf"^SDACConfig.*{message}"):
    acme_qsm.SDACConfig(**fields)


@pytest.mark.parametrize(
  ("fields", "most"),
  [
    ({"boltzmann_temperature": 0.05, **CONSTANT}, 2.0),
    ({"boltzmann_temperature": 0.01, "q_value_clip": 0.5, **CONSTANT}, 0.4),
    # It falls to 0.0984 / exploration_noise, but not below its least.
    ({"exploration_noise": 2.0, **DECAYS}, 1.968),
    ({"exploration_noise": 2.0, "min_temperature": 0.07, **DECAYS}, 2.8),
  ],
)
def test_weights_that_would_be_beyond_single_precision(fields, most):
  # Of Adam, which squares a gradient that has the weight for a factor.
  fields = {"weights": "normalized_exponential", **fields}
  with pytest.raises(
    ValueError, match=rf"^SDACConfig\.q_value_clip must be at most {most:.4g}, "
  ):
    acme_qsm.SDACConfig(**fields)
  acme_qsm.SDACConfig(**{**fields, "q_value_clip": most - 1e-3})
  acme_qsm.SDACConfig(
    **{**fields, "weights": "exponential", "q_value_clip": 9.0}
  )


@pytest.mark.parametrize(
  "fields",
  [
    # One sample does where its weight says something.
    {"num_reverse_samples": 1, "weights": "exponential", **CONSTANT},
    {"num_reverse_samples": 1, "weights": "normalized_exponential", **CONSTANT},
    {"target_kl": LOG_16 - 1e-6, **OF_TARGET_KL},
    # Where it is not aimed at, it is not looked at.
    {"num_reverse_samples": 2, "target_kl": 9.0, **CONSTANT},
  ],
)
def test_edges_of_what_weights_can_be(fields):
  acme_qsm.SDACConfig(**fields)


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


@pytest.mark.parametrize(
  ("method", "preset", "published"),
  [
    # Two layers of 256, as the paper says; of 512, as its implementation.
    ("qsm", "paper", {"policy_hidden_sizes": (256, 256)}),
    ("qsm", "official", {"policy_hidden_sizes": (512, 512)}),
    # exp(2 kappa Q) is that of Q itself.
    ("qsm", "langevin", {"q_score_scale": 0.5}),
    ("sdac", "paper", {"noise_schedule": "cosine"}),
    (
      "sdac",
      "reference",
      {
        "noise_schedule": "linear",
        # 0.8 times linspace(1e-4, 0.999).
        "beta_start": 0.8 * 1e-4,
        "beta_end": 0.8 * 0.999,
        "num_reverse_samples": 64,
        "num_action_candidates": 32,
      },
    ),
    (
      "idem",
      "reference",
      {
        # exp(Q) of rewards times 0.2.
        "boltzmann_temperature": 5.0,
        "reward_scale": 0.2,
        "num_reverse_samples": 64,
        "estimator": "gradient",
      },
    ),
    (
      "dpmd",
      "reference",
      {
        "num_policy_samples": 1,
        "q_value_clip": 3.0,
        "q_statistics_decay": 0.999,
        "num_target_candidates": 32,
      },
    ),
    (
      "qvpo",
      "official",
      {
        "num_policy_samples": 64,
        "num_random_actions": 10,
        "policy_learning_rate": 1e-4,
      },
    ),
    ("dipo", "official", {"num_denoising_steps": 100, "num_action_moves": 20}),
    ("gaussian", "paper", {"entropy_in_target": True, "target_entropy": -1.0}),
  ],
)
def test_presets_are_the_published_ones(method, preset, published):
  config = methods.METHODS[method].preset(preset)
  for field, value in published.items():
    assert getattr(config, field) == pytest.approx(value), field
  if method == "sdac":
    assert config.policy_hidden_sizes == config.critic_hidden_sizes
    assert config.policy_hidden_sizes == (256, 256, 256)
    assert config.num_denoising_steps == 20
    assert config.n_step == 1
    # One update of 256 transitions per five environment steps.
    assert config.samples_per_transition == pytest.approx(51.2)
  if preset == "official" and method in ("qvpo", "dipo"):
    assert not config.acts_by_target(evaluation=True)


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
  # Delayed updates read the batch's size too, for their metrics' shapes.
  assert fields - all_read - {"batch_size"} == {
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
