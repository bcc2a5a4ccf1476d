"""Launchers in surroundings that are not as they should be."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from acme_qsm.experiments.records import checkpointing
from acme_qsm.experiments.records.loggers import read_csv
from acme_qsm.experiments.surroundings import compilation_cache
from launchers import local

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def command(tmp_path, small_arguments):
  """Makes the local launcher's command, in tmp_path / "run"."""

  def make(num_steps, *more):
    return [
      *(sys.executable, str(ROOT / "launchers" / "local.py")),
      *("--workdir", str(tmp_path / "run"), "--num_steps", str(num_steps)),
      *(*small_arguments(), *more),
    ]

  return make


def _environment(without=(), **variables):
  left_out = {"MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", *without}
  environment = {k: v for k, v in os.environ.items() if k not in left_out}
  # For a JAX that is quick to compile such small programs.
  return {**environment, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", **variables}


def _latest(tmp_path):
  latest = checkpointing.Checkpointer(tmp_path / "run/checkpoints").latest()
  assert latest is not None
  return latest


def _far_from_home():
  """What a command begins with, and its environment variables, far from home.

  Its user has neither a name nor a home; where that cannot be had, a home that
  cannot be written to.
  """
  nobody = ["unshare", "--user", "--map-user=54321"]
  possible = subprocess.run([*nobody, "true"], capture_output=True)
  home = {}
  if possible.returncode:
    nobody, home = [], {"HOME": "/dev/null"}
  return nobody, _environment(
    without=("HOME", "JAX_COMPILATION_CACHE_DIR"),
    PYTHONIOENCODING="ascii",
    MUJOCO_GL="foo",
    JAX_ENABLE_X64="1",
    **home,
  )


def _assert_single_precision(tmp_path):
  with np.load(_latest(tmp_path).path / "learner.npz") as arrays:
    dtypes = {arrays[name].dtype for name in arrays.files}
  assert dtypes <= {np.dtype(t) for t in (np.float32, np.int32, np.uint32)}


def test_a_run_far_from_home(tmp_path, command):
  """Where much is missing, and one line says so of each that matters."""
  nobody, environment = _far_from_home()
  done = subprocess.run(
    [*nobody, *command(260, "--min_replay_size", "200")],
    env=environment,
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=True,
  )
  assert [path.name for path in tmp_path.iterdir()] == ["run"]
  # ± as ASCII has it.
  assert re.search(r"evaluation return \d+\.\d \\xb1 0\.0", done.stdout)
  assert "Done: 260 environment steps" in done.stdout
  assert "Nothing was learned" not in done.stdout
  warnings = done.stderr.splitlines()
  assert len(warnings) == 2, done.stderr
  assert warnings[0].startswith("Warning: what JAX compiles is not kept for")
  assert "MUJOCO_GL=foo: there is no such renderer" in warnings[1]
  assert (tmp_path / "run" / "learning_curve.png").stat().st_size > 1000
  _assert_single_precision(tmp_path)

  # As `| head -1` has it, and with standard error closed from the start. In
  # single precision, which the variable above has changed nothing of.
  with subprocess.Popen(
    ["sh", "-c", 'exec "$0" "$@" 2>&-', *command(300)],
    env=_environment(),
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Resumed from")
    process.stdout.close()
    assert process.wait(240) == 0
  assert _latest(tmp_path).metadata["actor_steps"] == 300


@pytest.mark.acme
@pytest.mark.slow
def test_many_processes_far_from_home(tmp_path, small_arguments):
  """The same in many processes, whose launcher's output is soon closed."""
  nobody, environment = _far_from_home()
  command = [
    *(sys.executable, str(ROOT / "launchers" / "distributed.py")),
    *("--workdir", str(tmp_path / "run"), "--num_actors", "1"),
    *(*small_arguments(), "--num_steps", "150", "--min_replay_size", "200"),
  ]
  with subprocess.Popen(
    [*nobody, "sh", "-c", 'exec "$0" "$@" 2>&-', *command],
    env=environment,
    cwd=tmp_path,
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    assert next(line for line in lines if line.startswith("Launched in"))
    line = next(lines)
    assert line.startswith("Warning: nothing will be learned."), line
    assert "min_replay_size=200 transitions" in line
    process.stdout.close()
    assert process.wait(240) == 0
  # Nothing has taken `~` for a folder's name.
  assert [path.name for path in tmp_path.iterdir()] == ["run"]
  assert _latest(tmp_path).metadata["actor_steps"] >= 150
  _assert_single_precision(tmp_path)
  assert (tmp_path / "run" / "learning_curve.png").stat().st_size > 1000


def test_nohup_and_a_cluster_s_warning(tmp_path, command):
  rows = tmp_path / "run" / "logs" / "actor.csv"

  def wait_for_episodes(number):
    deadline = time.monotonic() + 240
    while not rows.exists() or len(read_csv(rows)["actor_steps"]) < number:
      assert process.poll() is None, process.communicate()
      assert time.monotonic() < deadline
      time.sleep(0.05)

  with subprocess.Popen(
    ["nohup", *command(100_000, "--min_replay_size", "1000000")],
    env=_environment(),
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  ) as process:
    wait_for_episodes(1)
    process.send_signal(signal.SIGHUP)
    wait_for_episodes(len(read_csv(rows)["actor_steps"]) + 1)
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=120)
  assert process.returncode == 128 + signal.SIGUSR1, output
  assert _latest(tmp_path).metadata["actor_steps"] >= 2000


def test_other_random_numbers_are_refused(
  tmp_path, command, capfd, monkeypatch
):
  assert local.main(command(5)[2:]) == 0
  files = sorted(tmp_path.rglob("*"))
  for name, value in (
    ("jax_default_prng_impl", "rbg"),
    ("jax_threefry_partitionable", False),
    ("jax_random_seed_offset", 1),
  ):
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    capfd.readouterr()
    try:
      assert local.main(command(9)[2:]) == 2
    finally:
      jax.config.update(name, before)
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert f"its random_numbers.{name} is {before!r}, not {value!r}" in error
  assert sorted(tmp_path.rglob("*")) == files
  assert local.main(command(9)[2:]) == 0


def test_single_precision_is_the_launchers_alone(command):
  jax.config.update("jax_enable_x64", True)
  try:
    assert local.main(command(1)[2:]) == 0
    # The caller's JAX is as it was.
    assert jax.numpy.zeros(()).dtype == np.float64
  finally:
    jax.config.update("jax_enable_x64", False)


@pytest.mark.parametrize("base", ["/dev/null", "/proc/nobody"])
def test_a_home_that_cannot_be_written_to(base, monkeypatch, capsys):
  monkeypatch.setenv("XDG_CACHE_HOME", base)
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
  assert compilation_cache.use() is None
  assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("Warning: what JAX compiles is not kept")
  assert base in line
