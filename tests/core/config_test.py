"""The configuration: what it refuses, and that all of it is used."""

import ast
import dataclasses
import inspect
import math
import pathlib
import re

import pytest

import acme_qsm
from acme_qsm.core import config as config_lib


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
    ("min_replay_size", 0),
    ("min_replay_size", 255),
    ("max_replay_size", 9_999),
    ("samples_per_insert", 0.0),
    ("samples_per_insert_tolerance", 0.0),
    ("transitions_per_item", 0),
    ("variable_update_period", 0),
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
    ("num_denoising_steps", 1),
    ("num_critics", 1),
    ("min_replay_size", 256),
    ("max_replay_size", 10_000),
  ],
)
def test_edges_of_the_valid_values(field, value):
  config = acme_qsm.QSMConfig(**{field: value})
  assert getattr(config, field) == value


def test_the_published_setting():
  config = config_lib.PRESETS["official"]
  assert config.score_target == "action_gradient"
  assert config.q_score_scale == 50.0
  assert not config.normalize_action_gradient
  assert config.action_gradient_clip is None
  assert config.n_step == 1
  assert (config.noise_schedule, config.num_denoising_steps) == ("vp", 5)
  assert (config.batch_size, config.discount) == (256, 0.99)
  assert config.policy_hidden_sizes == config.critic_hidden_sizes == (256, 256)
  assert config.num_action_candidates == config.num_evaluation_candidates == 1
  assert (config.exploration_noise, config.target_action_noise) == (0.1, 0.1)
  assert config.num_critics == 2
  assert config.target_update_rate == 0.005
  assert config.policy_learning_rate == config.critic_learning_rate == 3e-4


def test_the_default_preset_is_the_default():
  assert config_lib.PRESETS["default"] == acme_qsm.QSMConfig()


def test_frozen_and_hashable():
  config = acme_qsm.QSMConfig()
  with pytest.raises(dataclasses.FrozenInstanceError):
    config.discount = 0.5  # pyright: ignore[reportAttributeAccessIssue]
  assert hash(config) == hash(acme_qsm.QSMConfig())
  assert config != acme_qsm.QSMConfig(discount=0.5)


def test_every_field_is_explained():
  documented = re.findall(
    r"^ {2}(\w+):", inspect.getdoc(acme_qsm.QSMConfig) or "", re.MULTILINE
  )
  assert documented == [
    field.name for field in dataclasses.fields(acme_qsm.QSMConfig)
  ]


def test_every_field_is_read():
  # A field that nothing reads is a promise that nothing keeps.
  package = pathlib.Path(acme_qsm.__file__).parent
  read = set()
  for path in package.rglob("*.py"):
    if path == package / "config.py":
      continue
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        owner = node.value
        name = getattr(owner, "id", getattr(owner, "attr", ""))
        if name.endswith("config"):
          read.add(node.attr)
  fields = {field.name for field in dataclasses.fields(acme_qsm.QSMConfig)}
  assert not fields - read
