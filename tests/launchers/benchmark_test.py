"""The benchmark: what it counts, and that each of its parts runs."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import acme_qsm
from acme_qsm.methods import METHODS
from launchers import benchmark
from launchers.benchmarks import evaluations
from launchers.benchmarks import learner
from launchers.benchmarks import machine
from launchers.benchmarks import methods
from launchers.benchmarks import rates
from launchers.benchmarks import replay
from launchers.benchmarks import report
from launchers.benchmarks import reverb_replay
from launchers.benchmarks import start
from launchers.benchmarks import timing
from tests.distributed.launched import ROOT


def test_functions_are_timed_in_turn():
  calls = []
  found = timing.measure(
    {name: lambda name=name: calls.append(name) for name in "ab"},
    repeats=3,
    seconds=1e-9,
  )
  assert {name: len(seconds) for name, seconds in found.items()} == {
    "a": 3,
    "b": 3,
  }
  # Each twice to get ready.
  assert "".join(calls) == "aabb" + 3 * "ab"


def test_median_and_spread():
  summary = timing.summarize([float(x) for x in range(11)])
  assert summary == (5.0, 1.0, 9.0)
  assert summary.describe() == {"median": 5e3, "low": 1e3, "high": 9e3}


def test_rates_are_compared_within_a_turn():
  # The machine is twice as fast in the second turn, and three times in the
  # third.
  turns = [
    {"one": {"rate": factor * 10.0}, "two": {"rate": factor * 5.0}}
    for factor in (1, 2, 3)
  ]
  assert timing.compare(turns) == {
    "one": {"rate": 20.0, "rate_ratio": 1.0},
    "two": {"rate": 10.0, "rate_ratio": 0.5},
  }


def test_steps_per_second():
  steps = rates.Steps()
  steps.times += [0.0, 0.5, 1.0, 3.0]
  assert steps.rate(0, 2) == 2.0
  assert steps.rate(1, 3) == 0.8


def test_memory():
  before = machine.memory()
  data = np.ones(1 << 23)
  data_bytes = data.nbytes
  assert machine.memory().now >= before.now + data_bytes / 2
  del data
  after = machine.memory(os.getpid())
  assert after.peak >= before.now + data_bytes / 2
  assert after.peak >= after.now


def test_cases():
  quick, usual, full = (
    learner.list_cases(*which)
    for which in [(True, False), (False, False), (False, True)]
  )
  # What the others are compared with comes first.
  assert quick[0] == usual[0] == full[0] == learner.Case()
  assert len(usual) == 1 + sum(len(axis) - 1 for axis in learner.AXES.values())
  assert len(full) == 3 * 3 * 2 * 3 + 2
  assert set(quick) <= set(usual) <= set(full)


@pytest.mark.parametrize(
  ("num_fused", "num_seeds", "shape"),
  [(1, 1, ()), (3, 2, (3, 2))],
)
def test_a_call_makes_the_gradient_steps_it_says(num_fused, num_seeds, shape):
  config = learner.make_config(num_denoising_steps=2, batch_size=8, width=16)
  step = learner.Step(config, num_fused=num_fused, num_seeds=num_seeds)
  first, second = step(), step()
  assert first["critic_loss"].shape == second["critic_loss"].shape == shape
  assert np.all(np.isfinite(second["critic_loss"]))
  assert not np.any(first["critic_loss"] == second["critic_loss"])


_PARTICLES = {
  "num_denoising_steps": 20,
  "num_target_candidates": 32,
  "policy_update_period": 1,
}


@pytest.mark.parametrize(
  ("config", "expected"),
  [
    # The T steps of the target's action, 8 for the critics, and the policy's:
    # worked out by hand for the settings that others train with.
    (acme_qsm.QSMConfig(num_denoising_steps=5), 5 + 8 + 4 + 3),
    (
      acme_qsm.SDACConfig(
        num_denoising_steps=20,
        num_reverse_samples=1,
        weights="normalized_exponential",
        temperature_update="constant",
        policy_update_period=2,
      ),
      20 + 8 + (2 + 3) / 2,
    ),
    (
      acme_qsm.DPMDConfig(
        **_PARTICLES,
        num_policy_samples=1,
        weights="normalized_exponential",
        temperature_update="constant",
      ),
      704 + 8 + 2 + 3,
    ),
    (
      acme_qsm.IDEMConfig(
        **_PARTICLES,
        noisy_action_source="policy",
        num_reverse_samples=64,
        reverse_sampling="clipped",
      ),
      704 + 8 + 704 + 4 * 64 + 3,
    ),
    (
      acme_qsm.IDEMConfig(
        num_denoising_steps=10, num_reverse_samples=8, policy_update_period=1
      ),
      10 + 8 + 4 * 8 + 3,
    ),
    (
      acme_qsm.QVPOConfig(
        num_denoising_steps=20,
        num_target_candidates=4,
        num_policy_samples=64,
        num_random_actions=10,
      ),
      80 + 8 + 8 + 64 * 20 + 64 * 2 + 3 + 30,
    ),
    (
      acme_qsm.DIPOConfig(num_denoising_steps=100, num_action_moves=30),
      100 + 8 + 30 * 4 + 3,
    ),
    (acme_qsm.GaussianConfig(entropy_in_target=False), 1 + 8 + 3 + 4),
  ],
  ids=lambda value: getattr(type(value), "__name__", str(value)),
)
def test_network_evaluations(config, expected):
  assert evaluations.count(config, action_size=6) == expected


def test_what_is_measured_of_methods():
  configs = methods.list_configs()
  assert {methods.STANDARD, methods.DIVIDED, *methods.QUICK} <= set(configs)
  # Each method, with widths alike, so that methods are compared.
  assert {type(config) for config in configs.values()} == {
    method.config for method in METHODS.values()
  }
  widths = {config.policy_hidden_sizes for config in configs.values()}
  assert widths == {(256, 256)}
  # All of them can be measured.
  for config in configs.values():
    core = acme_qsm.make_learner_core(learner.make_networks(config), config)
    jax.eval_shape(
      learner.make_step(core),
      jax.eval_shape(core.init, jax.random.key(0)),
      learner.make_transitions(config.batch_size),
    )
  with pytest.raises(ValueError, match="configuration 'Mine'"):
    evaluations.count(type("Mine", (acme_qsm.QSMConfig,), {})(), action_size=6)


def test_the_memory_of_an_update_grows_with_its_batch():
  sizes = [
    learner.Step(
      learner.make_config(num_denoising_steps=2, batch_size=size, width=16)
    ).memory_bytes
    for size in (8, 1024)
  ]
  # At least by the batch itself.
  batch = 4 * (2 * learner.OBSERVATION_SIZE + learner.ACTION_SIZE + 2)
  assert sizes[1] - sizes[0] >= (1024 - 8) * batch


def test_the_limit_is_what_its_operations_say():
  chain, flops = learner.make_limit(batch_size=8, width=16)
  assert flops == 24 * 2 * 8 * 16 * 16
  # The products alone: its shape, and neither zero nor infinite.
  result = np.asarray(jax.block_until_ready(chain()))
  assert result.shape == (8, 16)
  assert 0 < np.abs(result).max() < np.inf


def make_case(milliseconds=1.0, **sizes):
  standard = {name: axis[0] for name, axis in learner.AXES.items()}
  times = {name: milliseconds for name in timing.Seconds._fields}
  return {**standard, **sizes, "milliseconds_per_call": times}


def test_axes_are_found():
  cases = [
    make_case(),
    make_case(width=512),
    make_case(batch_size=4096),
    make_case(batch_size=1024),
    make_case(batch_size=1024, width=512),
  ]
  assert report.find_axes(cases) == {
    "batch_size": [cases[0], cases[3], cases[2]],
    "width": cases[:2],
  }


def test_slope():
  values = [1.0, 3.0, 7.0]
  assert report.slope(values, [2 * x**1.5 for x in values]) == pytest.approx(
    1.5
  )


def test_table():
  rows = [{"name": "a", "rate": 12345.6}, {"name": "long", "rate": 0.01234}]
  assert report.format_table(rows).splitlines() == [
    "name    rate",
    "   a  12,346",
    "long  0.0123",
  ]


def test_picture(tmp_path):
  path = tmp_path / "benchmark.png"
  assert not report.plot([make_case()], {}, path)
  assert not path.exists()
  program = {
    str(number): {"environment_steps_per_second": 60.0 * number}
    for number in (1, 2)
  }
  assert report.plot([make_case(), make_case(3.0, width=512)], program, path)
  assert path.read_bytes()[:4] == b"\x89PNG"


def test_the_core_s_parts_from_the_command_line(tmp_path, monkeypatch):
  monkeypatch.setattr(learner, "list_cases", lambda *_: [learner.Case()])
  command = ["--quick", "--parts", "learner", "acting", "methods"]
  assert benchmark.main([*command, "--output", str(tmp_path)]) == 0
  found = json.loads((tmp_path / "benchmark.json").read_text())
  assert found["machine"]["cores"] > 0
  assert found["limit_gflops"] > 0
  assert found["learner"]["steps_per_second"] > 0
  assert found["learner"]["share_of_limit"] > 0
  assert found["learner"]["gflop_per_step"] > 0
  assert 0 < found["acting"]["median_ms"] <= found["acting"]["p99_ms"]
  standard, *others = found["methods"]["rows"]
  assert standard["updates_of_standard"] == 1.0
  for row in others:
    assert row["updates_of_standard"] > 0
    assert row["update_ms"] > 0
    assert row["act_ms"] > 0
  parts = found["methods"]["parts_ms"]
  assert {"whole update", "critics at them"} < set(parts)


def check_replay(found):
  assert found["inserts_per_second"] > 0
  assert found["samples_per_second"] > 0
  # None, where a batch always comes while an update still runs.
  assert 0 <= found["learner_wait_share"] < 1
  # Two observations, an action, a reward and a discount.
  assert found["raw_bytes_per_transition"] == 4 * (2 * 17 + 6 + 2)
  assert found["bytes_per_transition"] > 0
  assert found["peak_bytes_per_transition"] >= found["bytes_per_transition"]
  assert found["first_save_seconds"] > 0
  assert found["save_seconds_10000_later"] > 0


def test_embedded_replay(tmp_path):
  check_replay(replay.measure_embedded(20_000, 0.2, tmp_path))
  # Nothing of what was saved is left.
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("transitions_per_item", [1, 4])
def test_reverb_of_both_kinds(transitions_per_item, tmp_path):
  found = reverb_replay.measure(2_000, 0.2, tmp_path, transitions_per_item)
  assert set(found) == {"local", "separate"}
  for each in found.values():
    check_replay(each)
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
  "replay_and_per_item", [("embedded", "1"), ("reverb", "4")]
)
def test_loop(replay_and_per_item):
  done = subprocess.run(
    [
      *(sys.executable, "-m", "launchers.benchmarks.loop"),
      *("cartpole:balance", "80", *replay_and_per_item),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  assert found["environment_steps_per_second"] > 0
  assert found["learner_only_steps_per_second"] > 0
  low, high = found["share_of_learner_rate_spread"]
  assert 0 < low <= found["share_of_learner_rate"] <= high
  budget = found["milliseconds_per_step"]
  assert set(budget) == {
    *("act", "wait for update", "dispatch", "environment", "insert"),
    *("sample", "rest"),
  }
  assert all(milliseconds > 0 for milliseconds in budget.values())
  assert found["update_alone_milliseconds"] > 0
  assert found["peak_memory_bytes"] > 2**20


@pytest.mark.slow
@pytest.mark.parametrize(
  "measured",
  [
    ("rates", "qsm", "2"),
    ("rates", "official", "1"),
    ("rates", "sac", "1"),
    ("plain_loop",),
  ],
)
def test_environment_steps_per_second(measured):
  module, *arguments = measured
  done = subprocess.run(
    [
      *(sys.executable, "-m", f"launchers.benchmarks.{module}"),
      *(*arguments, "100"),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  assert set(found) == {
    *("acting_steps_per_second", "learning_steps_per_second")
  }
  assert all(rate > 0 for rate in found.values())


def test_answers_at_once():
  found = start.measure_answers("local", repeats=1)
  assert set(found) == set(start.COMMANDS)
  assert all(seconds > 0 for seconds in found.values())


@pytest.mark.slow
def test_first_update():
  found = start.measure_first_update("cartpole:balance", repeats=1)
  assert set(found) == {"cold_seconds", "warm_seconds"}
  assert all(seconds > 0 for seconds in found.values())


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--quick", "--full"], "exclude each other"),
    (["--parts", "everything"], "invalid choice: 'everything'"),
    (["--output", "{file}/folder"], "cannot be made"),
  ],
)
def test_wrong_arguments(arguments, message, tmp_path, capfd):
  file = tmp_path / "file"
  file.touch()
  with pytest.raises(SystemExit) as error:
    benchmark.main([argument.format(file=file) for argument in arguments])
  assert error.value.code == 2
  assert message in capfd.readouterr().err
