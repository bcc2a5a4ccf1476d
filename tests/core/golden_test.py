"""Q-score matching's numbers as they were before the house was rebuilt.

`golden/<name>.npz` holds what the code of commit 63f420a computed:
`python tests/core/golden_test.py` there wrote it. A change that moves a number
is a change of the method: it needs a reason, not a new file.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import acme_qsm

FOLDER = pathlib.Path(__file__).parent / "golden"
OBSERVATION_SIZE, ACTION_SIZE, BATCH_SIZE = 5, 3, 16
NUM_STEPS = 30

# Field by field: a default that changes must not change what is compared.
COMMON = {
  "policy_hidden_sizes": (16, 12),
  "critic_hidden_sizes": (16, 12),
  "time_embedding_size": 8,
  "time_hidden_size": 8,
  "batch_size": BATCH_SIZE,
  "num_sgd_steps_per_step": 1,
  "policy_learning_rate": 3e-4,
  "critic_learning_rate": 3e-4,
  "target_update_rate": 0.005,
  "exploration_noise": 0.1,
  "min_replay_size": 1_000,
  "max_replay_size": 100_000,
  "samples_per_insert": 16.0,
  "samples_per_insert_tolerance": 0.1,
  "transitions_per_item": 1,
  "variable_update_period": 1,
}
CONFIGS = {
  # What `QSMConfig()` was.
  "boltzmann": {
    **COMMON,
    "num_critics": 2,
    "num_denoising_steps": 10,
    "noise_schedule": "vp",
    "sampling_temperature": 1.0,
    "score_target": "boltzmann",
    "q_score_scale": 10.0,
    "normalize_action_gradient": False,
    "action_gradient_decay": 0.999,
    "action_gradient_clip": 5.0,
    "discount": 0.99,
    "reward_scale": 1.0,
    "num_target_candidates": 1,
    "target_action_noise": 0.1,
    "n_step": 3,
    "num_action_candidates": 1,
    "evaluate_target_denoiser": True,
    "evaluation_temperature": 1.0,
    "num_evaluation_candidates": 1,
  },
  # What the preset `official` was.
  "action_gradient": {
    **COMMON,
    "num_critics": 2,
    "num_denoising_steps": 5,
    "noise_schedule": "vp",
    "sampling_temperature": 1.0,
    "score_target": "action_gradient",
    "q_score_scale": 50.0,
    "normalize_action_gradient": False,
    "action_gradient_decay": 0.999,
    "action_gradient_clip": None,
    "discount": 0.99,
    "reward_scale": 1.0,
    "num_target_candidates": 1,
    "target_action_noise": 0.1,
    "n_step": 1,
    "num_action_candidates": 1,
    "evaluate_target_denoiser": False,
    "evaluation_temperature": 1.0,
    "num_evaluation_candidates": 1,
  },
  # Whatever else there is to choose, all at once.
  "candidates": {
    **COMMON,
    "num_critics": 3,
    "num_denoising_steps": 4,
    "noise_schedule": "cosine",
    "sampling_temperature": 0.7,
    "score_target": "boltzmann",
    "q_score_scale": 2.0,
    "normalize_action_gradient": True,
    "action_gradient_decay": 0.9,
    "action_gradient_clip": 3.0,
    "discount": 0.95,
    "reward_scale": 0.5,
    "num_target_candidates": 3,
    "target_action_noise": 0.2,
    "n_step": 3,
    "num_action_candidates": 4,
    "evaluate_target_denoiser": True,
    "evaluation_temperature": 0.3,
    "num_evaluation_candidates": 5,
  },
  "normalized_action_gradient": {
    **COMMON,
    "num_critics": 2,
    "num_denoising_steps": 3,
    "noise_schedule": "linear",
    "sampling_temperature": 1.0,
    "score_target": "action_gradient",
    "q_score_scale": 1.5,
    "normalize_action_gradient": True,
    "action_gradient_decay": 0.999,
    "action_gradient_clip": None,
    "discount": 0.99,
    "reward_scale": 1.0,
    "num_target_candidates": 1,
    "target_action_noise": 0.0,
    "n_step": 1,
    "num_action_candidates": 1,
    "evaluate_target_denoiser": True,
    "evaluation_temperature": 0.0,
    "num_evaluation_candidates": 2,
  },
}


class Spec:
  """An array's spec, without dm_env."""

  def __init__(self, size, minimum=None, maximum=None):
    self.shape, self.dtype = (size,), np.float32
    self.minimum, self.maximum = minimum, maximum


class EnvironmentSpec:
  """An environment's spec, without Acme."""

  observations = Spec(OBSERVATION_SIZE)
  actions = Spec(ACTION_SIZE, -1.0, 1.0)


def make_batch(seed):
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  return acme_qsm.Transition(
    observation=normal(BATCH_SIZE, OBSERVATION_SIZE),
    action=jnp.tanh(normal(BATCH_SIZE, ACTION_SIZE)),
    reward=normal(BATCH_SIZE),
    discount=jnp.asarray(rng.integers(0, 2, BATCH_SIZE), jnp.float32),
    next_observation=normal(BATCH_SIZE, OBSERVATION_SIZE),
  )


def flatten(state):
  """The parameters by name."""
  trees = {
    "denoiser": state.policy_params,
    "target_denoiser": state.target_policy_params,
    "critics": state.critic_params,
    "target_critics": state.target_critic_params,
  }
  leaves = jax.tree_util.tree_flatten_with_path(trees)[0]
  return {jax.tree_util.keystr(path): np.array(leaf) for path, leaf in leaves}


def compute(fields):
  """Parameters after one and after all steps, and actions with the last."""
  config = acme_qsm.QSMConfig(**fields)
  networks = acme_qsm.make_networks(EnvironmentSpec(), config)
  core = acme_qsm.make_learner_core(networks, config)
  step = jax.jit(core.step)
  state = core.init(jax.random.key(7))
  found = {}
  for i in range(NUM_STEPS):
    state, metrics = step(state, make_batch(i))
    if i + 1 in (1, NUM_STEPS):
      found |= {f"step_{i + 1}{k}": v for k, v in flatten(state).items()}
      for name in ("critic_loss", "denoiser_loss", "action_gradient_size"):
        found[f"step_{i + 1}.{name}"] = np.array(metrics[name])
  observation = make_batch(NUM_STEPS).observation
  for evaluation in (False, True):
    policy = acme_qsm.make_policy(networks, config, evaluation)
    params = core.policy_params(state)
    for steps in (0, NUM_STEPS):
      found[f"action_{evaluation}_{steps}"] = np.array(
        jax.jit(policy)(
          params._replace(steps=jnp.int32(steps)),
          jax.random.key(11),
          observation,
        )
      )
  return found


@pytest.mark.parametrize("name", CONFIGS)
def test_the_numbers_of_before(name):
  found = compute(CONFIGS[name])
  with np.load(FOLDER / f"{name}.npz") as golden:
    assert set(found) == set(golden.files)
    for key in golden.files:
      # Sums may be reordered, and Adam divides by the gradient's size. Of large
      # numbers, processors round the last 8 units (float32's are 1.2e-7)
      # differently: three of a loss of 41 were seen.
      tolerance = 1e-5 if key.startswith("step_1") else 1e-3
      np.testing.assert_allclose(
        found[key], golden[key], rtol=1e-6, atol=tolerance, err_msg=key
      )


def test_the_numbers_depend_on_the_draws():
  # What is compared would notice other random numbers.
  fields = CONFIGS["boltzmann"]
  found = compute(fields)
  with np.load(FOLDER / "action_gradient.npz") as golden:
    moved = [
      np.abs(found[key] - golden[key]).max()
      for key in golden.files
      if key.startswith("step_1[") and golden[key].shape == found[key].shape
    ]
  assert max(moved) > 1e-4


if __name__ == "__main__":
  FOLDER.mkdir(exist_ok=True)
  for config_name, config_fields in CONFIGS.items():
    np.savez_compressed(FOLDER / f"{config_name}.npz", **compute(config_fields))
