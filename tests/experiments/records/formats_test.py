"""Tests with a work directory that an older release has left."""

import dataclasses
import json
import pathlib
import shutil
from typing import NamedTuple

import numpy as np
import pytest

from acme_qsm.experiments.records import checkpointing
from acme_qsm.experiments.records import formats
from acme_qsm.experiments.records.loggers import read_csv
from launchers import local

OLD_RUN = pathlib.Path(__file__).parent / "format_1"
# The command that wrote it.
COMMAND = [
  *("--task", "cartpole:swingup", "--seed", "3"),
  *("--policy_hidden_sizes", "8", "--critic_hidden_sizes", "8"),
  *("--time_embedding_size", "4", "--time_hidden_size", "4"),
  *("--num_denoising_steps", "2", "--batch_size", "8"),
  *("--samples_per_insert", "8", "--min_replay_size", "50"),
  *("--max_replay_size", "200", "--eval_every", "150"),
  *("--num_eval_episodes", "1"),
]


@pytest.fixture
def old_run(tmp_path):
  """A copy of the old work directory."""
  return shutil.copytree(OLD_RUN, tmp_path / "run")


def _resume(path, num_steps, *more):
  return local.main(
    [*COMMAND, "--workdir", str(path), "--num_steps", str(num_steps), *more]
  )


def _latest(path):
  return checkpointing.Checkpointer(path / "checkpoints").latest()


def _arrays(checkpoint):
  with np.load(checkpoint.path / "learner.npz") as arrays:
    return dict(arrays)


def test_langevin_dynamics_of_an_old_run_keep_their_density():
  old = {"langevin": True, "q_score_scale": 10.0, "action_gradient_clip": 5.0}
  new = {**old, "q_score_scale": 5.0, "action_gradient_clip": 2.5}

  def upgrade(fields):
    saved = {formats.VERSION_KEY: 2, "config": fields}
    return formats.upgrade_config(saved)["config"]

  assert upgrade(old) == new
  assert upgrade({**old, "action_gradient_clip": None})["q_score_scale"] == 5.0
  # Not of others, and not twice.
  assert upgrade({**old, "langevin": False})["q_score_scale"] == 10.0
  current = {**new, "posterior_variance": "fixed_small"}
  assert upgrade(current) == current


@pytest.mark.acme
def test_an_old_learner_comes_back(old_run, capsys):
  before = _latest(old_run)
  assert before.version == 1
  assert _resume(old_run, 300) == 0
  output = capsys.readouterr().out.replace("\n", "")
  assert "300 environment steps, 251 learner steps" in output
  assert "200 items in replay" in output
  # Nothing was left to do, and so nothing to save.
  assert _latest(old_run).path == before.path


@pytest.mark.acme
def test_an_old_run_goes_on(old_run, capsys):
  old = _arrays(_latest(old_run))
  evaluations = old_run / "logs" / "evaluator.csv"
  returns = read_csv(evaluations)["episode_return"]
  assert _resume(old_run, 400) == 0
  assert "Resumed from" in capsys.readouterr().out

  config = json.loads((old_run / "config.json").read_text())
  assert config["format_version"] == formats.VERSION
  assert config["agent"] == "qsm"
  assert "builder" not in config
  new = _latest(old_run)
  assert new.version == formats.VERSION
  assert new.metadata["actor_steps"] == 400
  counts = new.metadata["counter"]["counts"]
  # One learner step for each environment step, and none of them twice.
  assert 251 + 90 <= counts["learner_steps"] <= 251 + 100
  learner = _arrays(new)
  today = formats.leaf_names(1, frozenset(learner))
  assert {today(name) for name in old} == set(learner)
  assert learner[".steps"] == counts["learner_steps"]
  for name, array in old.items():
    # A hundred steps do not lead far from where it was.
    if "_params" in name:
      np.testing.assert_allclose(learner[today(name)], array, atol=0.1)
  log = read_csv(evaluations)
  np.testing.assert_array_equal(log["actor_steps"], [150, 300, 400])
  np.testing.assert_array_equal(log["episode_return"][:2], returns)
  # And so it does once more, as a run of today.
  assert _resume(old_run, 410) == 0


def test_old_parameters_get_todays_names():
  wanted = frozenset(
    {
      ".policy_params['a']['w']",
      ".target_policy_params['a']['w']",
      ".critic_params['a']['w']",
      ".policy_opt_state[0].mu['a']['w']",
      ".method_state.action_gradient_square",
    }
  )
  old = [
    ".denoiser_params['a']['w']",
    ".target_denoiser_params['a']['w']",
    ".critic_params['a']['w']",
    ".denoiser_opt_state[0].mu['a']['w']",
    ".action_gradient_square",
  ]
  today = formats.leaf_names(1, wanted)
  assert {today(name) for name in old} == wanted
  # What today's state does not have stays what it was, to be refused by name.
  assert today(".denoiser_params['b']") == ".denoiser_params['b']"


class _OldExtra(NamedTuple):
  q_mean: np.ndarray
  q_square: np.ndarray


class _OldState(NamedTuple):
  extra: _OldExtra


class _Extra(NamedTuple):
  q_mean: np.ndarray
  q_variance: np.ndarray


class _State(NamedTuple):
  method_state: _Extra


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.0), (-7.0, 3.0)])
def test_a_mean_square_becomes_a_variance(tmp_path, mean, deviation):
  # `dpmd`'s, whose state has neither where its weights are not normalised.
  square = np.float32(mean**2 + deviation**2)
  checkpointer = checkpointing.Checkpointer(tmp_path)
  checkpointer.save(
    1, {"learner": _OldState(_OldExtra(np.float32(mean), square))}, {}
  )
  template = _State(_Extra(np.float32(0), np.float32(0)))
  checkpoint = checkpointer.latest()
  assert checkpoint is not None
  found = checkpoint.load("learner", template).method_state
  assert found.q_mean == mean
  np.testing.assert_allclose(found.q_variance, deviation**2, rtol=1e-5)
  # And what is saved today is what comes back.
  checkpointer.save(2, {"learner": template}, {})
  assert checkpointer.latest().load("learner", template) == template


@pytest.mark.parametrize(
  ("change", "arguments", "message"),
  [
    ({"format_version": 3}, (), "format version 3"),
    ({"speed": 1}, (), "its speed is 1, a setting that this release does not"),
    ({}, ("--discount", "0.9"), "its config.discount is 0.99, not 0.9"),
  ],
)
def test_what_is_refused(old_run, capsys, change, arguments, message):
  file = old_run / "config.json"
  file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
  before = {p: p.stat().st_mtime_ns for p in old_run.rglob("*") if p.is_file()}
  assert _resume(old_run, 400, *arguments) == 2
  assert message in capsys.readouterr().err
  after = {p: p.stat().st_mtime_ns for p in old_run.rglob("*") if p.is_file()}
  assert {p: t for p, t in after.items() if p.name != ".lock"} == before


@dataclasses.dataclass(frozen=True)
class _Config:
  needed: int
  sizes: tuple[int, ...] = (1, 2)
  others: dict = dataclasses.field(default_factory=lambda: {"a": 1})


def test_defaults_are_those_of_the_class():
  config = _Config(3, (7,), {"a": 8})
  expected = {"sizes": (1, 2), "others": {"a": 1}}
  assert formats.defaults(config) == expected
  assert formats.defaults({"builder": "SAC", "config": config}) == {
    "builder": {},
    "config": expected,
  }
  assert formats.defaults(None) == {}
