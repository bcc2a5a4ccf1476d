"""What importing the package loads, and what it promises."""

import pathlib
import subprocess
import sys

import pytest

import acme_qsm

# What must not be needed, nor loaded, to use the core.
ACME_STACK = ["acme", "dm_control", "launchpad", "reverb", "tensorflow"]


def run_python(code):
  return subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    check=False,
    # Where this very package was found.
    cwd=pathlib.Path(acme_qsm.__file__).parents[1],
  )


def test_the_core_does_not_need_the_acme_stack():
  result = run_python(f"""
import sys
sys.modules.update(dict.fromkeys({ACME_STACK}))
import acme_qsm
acme_qsm.QSMConfig()
# Loaded only when called, for what its own dependencies load.
import rlax
""")
  assert result.returncode == 0, result.stderr


def test_the_core_does_not_load_the_acme_stack():
  result = run_python(f"""
import sys
import acme_qsm
acme_qsm.QSMConfig()
assert not {{name.split(".")[0] for name in sys.modules}} & {{*{ACME_STACK}}}
""")
  assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
  ("code", "what"),
  [
    ("acme_qsm.AcmeBuilder", "acme_qsm.AcmeBuilder"),
    ("acme_qsm.QSMBuilder().make_replay_tables(spec)", "Replay in Reverb"),
    ("acme_qsm.QSMBuilder().make_dataset_iterator(None)", "Replay in Reverb"),
  ],
)
def test_who_needs_the_acme_stack_names_its_extra(code, what):
  result = run_python(f"""
import sys
sys.modules.update(dict.fromkeys({ACME_STACK}))
import acme_qsm
spec = acme_qsm.EnvironmentSpec(
  acme_qsm.ArraySpec((3,)), acme_qsm.ArraySpec((1,), minimum=-1.0, maximum=1.0)
)
try:
  {code}
except ModuleNotFoundError as error:
  print(error.name, error)
""")
  assert result.returncode == 0, result.stderr
  # Which package is missed first depends on what else is installed.
  name, _, message = result.stdout.partition(" ")
  assert message.startswith(f"{what} needs the package '{name}'")
  assert "extra `acme`" in result.stdout


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


def test_the_package_itself_loads_nothing():
  result = run_python("""
import sys
import acme_qsm
assert "jax" not in sys.modules
acme_qsm.losses, acme_qsm.configs, acme_qsm.QSMConfig
assert "jax" not in sys.modules
acme_qsm.losses.clipped_double_q_loss
assert "jax" in sys.modules and "haiku" not in sys.modules
""")
  assert result.returncode == 0, result.stderr


def test_unknown_names_are_attribute_errors():
  with pytest.raises(AttributeError, match=r"acme_qsm.*QSMbuilder"):
    acme_qsm.QSMbuilder  # noqa: B018  # pyright: ignore
