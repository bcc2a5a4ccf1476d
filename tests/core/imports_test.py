"""What importing the package loads, and what it promises."""

import pathlib
import subprocess
import sys

import pytest

import acme_qsm

# What must not be needed, nor loaded, to use the core.
ACME_STACK = ["acme", "dm_control", "launchpad", "reverb", "tensorflow"]


def run_python(code):
  done = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    # Where this very package was found.
    cwd=pathlib.Path(acme_qsm.__file__).parents[1],
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


# What needs the stack, as it is named where that is missing.
NEEDS = {
  "acme_qsm.AcmeBuilder": "acme_qsm.AcmeBuilder",
  "acme_qsm.QSMBuilder().make_replay_tables(spec)": "Replay in Reverb",
  "acme_qsm.QSMBuilder().make_dataset_iterator(None)": "Replay in Reverb",
}


def test_the_core_does_not_need_the_acme_stack_and_names_its_extra():
  printed = run_python(f"""
import sys
sys.modules.update(dict.fromkeys({ACME_STACK}))
import acme_qsm
acme_qsm.QSMConfig()
spec = acme_qsm.EnvironmentSpec(
  acme_qsm.ArraySpec((3,)), acme_qsm.ArraySpec((1,), minimum=-1.0, maximum=1.0)
)
for code in {list(NEEDS)}:
  try:
    exec(code)
  except ModuleNotFoundError as error:
    print(error.name, error)
# Loaded only when called, for what its own dependencies load.
import rlax
""")
  for line, what in zip(printed.splitlines(), NEEDS.values(), strict=True):
    # Which package is missed first depends on what else is installed.
    name, _, message = line.partition(" ")
    assert message.startswith(f"{what} needs the package '{name}'")
    assert "extra `acme`" in message


def test_what_a_run_needs_is_named_with_its_extra():
  printed = run_python("""
import sys
sys.modules["dm_env"] = None
from acme_qsm import environments, experiments
for load in (lambda: experiments.run_experiment, lambda: environments.adapt):
  try:
    load()
  except ModuleNotFoundError as error:
    print(error)
""")
  for line, what in zip(
    printed.splitlines(),
    ("experiments.run_experiment", "environments.adapt"),
    strict=True,
  ):
    assert line.startswith(f"acme_qsm.{what} needs the package 'dm_env'")
    assert "extra `run`" in line


def test_public_names():
  promised = {
    "DiffusionBuilder",
    "EnvironmentSpec",
    "QSMBuilder",
    "QSMConfig",
    "Transition",
    "diffusion",
    "losses",
    "make_learner_core",
    "make_networks",
    "make_policy",
    "methods",
    # From before there were rooms.
    "LearnerCore",
    "PolicyParams",
    "QSMNetworks",
    "TrainingState",
  }
  assert promised <= set(acme_qsm.__all__)
  assert len(set(acme_qsm.__all__)) == len(acme_qsm.__all__)
  assert set(acme_qsm.__all__) <= set(dir(acme_qsm))
  needs_acme = {"AcmeBuilder"}
  for name in set(acme_qsm.__all__) - needs_acme - {"QSMNetworks"}:
    assert getattr(acme_qsm, name).__name__.split(".")[-1] == name
  assert acme_qsm.QSMNetworks is acme_qsm.DiffusionNetworks


def test_only_what_is_used_is_loaded():
  run_python(f"""
import sys
import acme_qsm
assert "jax" not in sys.modules
acme_qsm.losses, acme_qsm.configs, acme_qsm.QSMConfig
assert "jax" not in sys.modules
acme_qsm.losses.clipped_double_q_loss
assert "jax" in sys.modules and "haiku" not in sys.modules
acme_qsm.QSMConfig(), acme_qsm.make_learner_core
assert not {{name.split(".")[0] for name in sys.modules}} & {{*{ACME_STACK}}}
""")


def test_unknown_names_are_attribute_errors():
  with pytest.raises(AttributeError, match=r"acme_qsm.*QSMbuilder"):
    acme_qsm.QSMbuilder  # noqa: B018  # pyright: ignore
