"""The benchmark: what it counts, and that each of its parts runs."""

import dataclasses
import json
import os
import time

import jax
import numpy as np
import pytest

import acme_qsm
from acme_qsm.methods import METHODS
from launchers import benchmark
from launchers.benchmarks import evaluations
from launchers.benchmarks import learner
from launchers.benchmarks import loop
from launchers.benchmarks import machine
from launchers.benchmarks import methods
from launchers.benchmarks import program
from launchers.benchmarks import rates
from launchers.benchmarks import replay
from launchers.benchmarks import report
from launchers.benchmarks import start
from launchers.benchmarks import timing


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_core_s_parts_from_the_command_line(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(learner, "list_cases", lambda *_: [learner.Case()])
  command = ["--quick", "--parts", "learner", "acting", "methods"]
  assert benchmark.main([*command, "--output", str(tmp_path)]) == 0
  found = json.loads((tmp_path / "benchmark.json").read_text())
  assert set(found) == {
    *("machine", "limit_gflops", "learner", "acting", "methods")
  }
  assert found["machine"]["cores"] > 0

  (case,) = found["learner"]["cases"]
  assert dataclasses.asdict(learner.Case()).items() <= case.items()
  for name in ("gflop_per_step", "steps_per_second", "share_of_limit"):
    assert found["learner"][name] == case[name], name
  # The two hidden layers of a denoiser and of two critics, for 256 transitions
  # in 5 denoising steps and in what learns: each a product of 2 x 256 x 256.
  assert case["gflop_per_step"] > 5 * 256 * 2 * 256 * 256 / 1e9
  assert case["gflops"] == pytest.approx(
    case["steps_per_second"] * case["gflop_per_step"]
  )
  assert case["steps_per_second"] == pytest.approx(
    1e3 / case["milliseconds_per_call"]["median"]
  )
  assert found["limit_gflops"] > 0
  # As medians of three, of rates and of their ratios.
  assert case["share_of_limit"] == pytest.approx(
    case["gflops"] / found["limit_gflops"], rel=0.8
  )

  acting = found["acting"]
  assert 0 < acting["median_ms"] <= acting["p99_ms"]
  assert list(acting["actions_per_second"]) == ["16", "256"]

  rows = found["methods"]["rows"]
  assert [row["method"] for row in rows] == list(methods.QUICK)
  assert rows[0]["updates_of_standard"] == 1.0
  configs = methods.list_configs()
  for row in rows:
    config, standard = configs[row["method"]], configs[methods.STANDARD]
    assert row["by_evaluations"] == evaluations.count(
      config, learner.ACTION_SIZE
    ) / evaluations.count(standard, learner.ACTION_SIZE)
    assert row["memory_mb"] == learner.Step(config).memory_bytes / 1e6
    # As medians of two.
    assert row["updates_of_standard"] == pytest.approx(
      row["update_ms"] / rows[0]["update_ms"], rel=0.8
    )
    assert row["act_ms"] > 0
  parts = found["methods"]["parts_ms"]
  assert parts.pop("method") == methods.QUICK[-1]
  assert set(parts) == {
    *("target action", "critics' gradient", "reverse samples"),
    *("critics at them", "whole update"),
  }
  assert all(milliseconds > 0 for milliseconds in parts.values())
  # They are printed, too.
  printed = capsys.readouterr().out
  assert report.format_table(rows) in printed


@pytest.fixture
def measured(monkeypatch):
  """What was asked to be measured, in order, in place of measuring it.

  What is found of the n-th are n and its multiples.
  """
  asked = []

  def measure(*what):
    asked.append(what)
    return float(len(asked))

  def run_module(name, *arguments):
    n = measure(name, *arguments)
    if name == "loop":
      return {
        "environment_steps_per_second": n,
        "share_of_learner_rate": 0.1 * n,
        "peak_memory_bytes": 1e6 * n,
        "milliseconds_per_step": {"act": 2 * n, "rest": 3 * n},
        "update_alone_milliseconds": 4 * n,
      }
    return {"acting_steps_per_second": n, "learning_steps_per_second": 2 * n}

  def in_new_process(function, *arguments):
    n = measure(function.__module__.split(".")[-1], *arguments)
    of_one = {"inserts_per_second": n}
    if function is replay.measure_embedded:
      return of_one
    return {"local": of_one, "separate": {"inserts_per_second": 2 * n}}

  def measure_program(num_actors, seconds):
    n = measure("program", num_actors)
    processes = {"learner": {"cores": n}}
    return {"environment_steps_per_second": n, "processes": processes}

  monkeypatch.setattr(benchmark, "_run_module", run_module)
  monkeypatch.setattr(benchmark, "_in_new_process", in_new_process)
  monkeypatch.setattr(program, "measure", measure_program)
  monkeypatch.setattr(
    *(start, "measure_answers"),
    lambda launcher, repeats: {"help": measure("answers", launcher)},
  )
  monkeypatch.setattr(
    *(start, "measure_first_update"),
    lambda task, repeats: {"cold_seconds": measure("first update", task)},
  )
  monkeypatch.setattr(
    *(methods, "measure"),
    lambda configs, **how: [
      {"method": name, "update_ms": measure("method", config)}
      for name, config in configs.items()
    ],
  )
  monkeypatch.setattr(
    *(methods, "measure_sdac_parts"),
    lambda config, **how: {"whole update": measure("parts", config)},
  )
  return asked


def run_part(part, folder, capsys):
  """What a part leaves, and the lines that it prints below its name."""
  assert benchmark.main(["--parts", part, "--output", str(folder)]) == 0
  lines = capsys.readouterr().out.split(f"\n{part}\n")[1].splitlines()
  found = json.loads((folder / "benchmark.json").read_text())[part]
  return found, lines


def test_rows_of_methods(measured, tmp_path, capsys):
  found, lines = run_part("methods", tmp_path, capsys)
  configs = methods.list_configs()
  assert measured == [
    *(("method", config) for config in configs.values()),
    ("parts", configs[methods.DIVIDED]),
  ]
  assert found["rows"] == [
    {"method": name, "update_ms": i + 1.0} for i, name in enumerate(configs)
  ]
  for name, line in zip(configs, lines[1:], strict=False):
    assert name in line
  assert found["parts_ms"]["method"] == methods.DIVIDED


@pytest.mark.parametrize(
  ("part", "head", "cases", "repeats"),
  [
    (
      "environments",
      "environments",
      {str(n): ("rates", "qsm", n, 3_000) for n in (1, 5, 16)},
      3,
    ),
    (
      "sac",
      "agent",
      {
        "qsm": ("rates", "qsm", 1, 3_000),
        "acme_sac": ("rates", "sac", 1, 3_000),
      },
      3,
    ),
    (
      "official",
      "loop",
      {
        "plain": ("plain_loop", 500),
        "qsm": ("rates", "official", 1, 500),
      },
      3,
    ),
  ],
)
def test_rows_of_rates(part, head, cases, repeats, measured, tmp_path, capsys):
  found, lines = run_part(part, tmp_path, capsys)
  assert measured == repeats * list(cases.values())
  assert list(found) == list(cases)
  for i, name in enumerate(cases):
    # Of three turns, the second has the median.
    value = len(cases) + i + 1
    assert found[name]["acting_steps_per_second"] == value
    assert found[name]["learning_steps_per_second"] == 2 * value
    row = lines[1 + i].split()
    assert row[0] == name
    assert row[1] == f"{value}"
  assert lines[0].split()[0] == head


def test_rows_of_loops(measured, tmp_path, capsys):
  found, lines = run_part("loop", tmp_path, capsys)
  cases = {
    f"{name}, {replay}": ("loop", task, 3_000, kind, per_item)
    for name, task in (
      *(("cartpole", "cartpole:swingup"), ("cheetah", "cheetah:run")),
    )
    for replay, kind, per_item in (
      ("embedded", "embedded", 1),
      ("reverb", "reverb", 1),
      ("reverb, 16 per item", "reverb", 16),
    )
  }
  assert measured == list(cases.values())
  assert list(found) == list(cases)
  table = lines[len(cases) :]
  assert table[0].split() == [
    *("ms", "per", "step", "act", "rest", "update", "alone")
  ]
  for i, name in enumerate(cases):
    assert found[name]["environment_steps_per_second"] == i + 1
    assert table[1 + i].split() == [
      *(*name.split(), str(2 * (i + 1)), str(3 * (i + 1)), str(4 * (i + 1)))
    ]


@pytest.mark.acme
def test_rows_of_replays(measured, tmp_path, capsys):
  found, lines = run_part("replay", tmp_path, capsys)
  assert [(name, *arguments[:2]) for name, *arguments in measured] == [
    ("replay", 1_000_000, 5.0),
    ("reverb_replay", 1_000_000, 5.0),
    ("reverb_replay", 1_000_000, 5.0),
  ]
  assert [arguments[-1] for arguments in measured[1:]] == [1, 16]
  rates = {
    "embedded": 1,
    "reverb, local": 2,
    "reverb, separate": 4,
    "reverb, 16 per item, local": 3,
    "reverb, 16 per item, separate": 6,
  }
  assert found == {
    name: {"inserts_per_second": rate} for name, rate in rates.items()
  }
  for (name, rate), line in zip(rates.items(), lines[1:], strict=False):
    assert line.split() == [*name.split(), str(rate)]


def test_rows_of_starts(measured, tmp_path, capsys):
  found, lines = run_part("start", tmp_path, capsys)
  assert measured == [
    ("answers", "local"),
    ("answers", "distributed"),
    ("first update", "cartpole:swingup"),
    ("first update", "cheetah:run"),
  ]
  assert found["answers"] == {
    "local": {"help": 1},
    "distributed": {"help": 2},
  }
  assert found["first_update"] == {
    "cartpole": {"cold_seconds": 3},
    "cheetah": {"cold_seconds": 4},
  }
  assert [line.split() for line in (*lines[1:3], *lines[4:6])] == [
    *(["local", "1"], ["distributed", "2"]),
    *(["cartpole", "3"], ["cheetah", "4"]),
  ]


def test_rows_of_programs(measured, tmp_path, capsys):
  found, lines = run_part("program", tmp_path, capsys)
  assert measured == [("program", number) for number in (1, 2, 4)]
  assert [each["environment_steps_per_second"] for each in found.values()] == [
    *(1, 2, 3)
  ]
  assert list(found) == ["1", "2", "4"]
  assert lines[0] == "1 actors: cores of each process: learner 1.00"
  assert [line.split() for line in lines[4:7]] == [
    *(["1", "1"], ["2", "2"], ["4", "3"])
  ]


def check_replay(found, num_transitions, elapsed):
  """Raises AssertionError unless it may be what was measured."""
  assert found["transitions"] == num_transitions
  # All of it happened within so many seconds.
  assert found["inserts_per_second"] > num_transitions / elapsed
  assert 0 < found["first_save_seconds"] < elapsed
  assert 0 < found["save_seconds_10000_later"] < elapsed
  # A batch of 256, at the least, in 0.2 s of sampling.
  assert found["samples_per_second"] > 256 / elapsed
  # None, where a batch always comes while an update still runs.
  assert 0 <= found["learner_wait_share"] < 1
  # Two observations, an action, a reward and a discount.
  assert found["raw_bytes_per_transition"] == 4 * (2 * 17 + 6 + 2)
  # Of so few it may be less than what the process gives back meanwhile.
  assert np.isfinite(found["bytes_per_transition"])
  assert found["peak_bytes_per_transition"] >= found["bytes_per_transition"]


def test_embedded_replay(tmp_path):
  started = time.perf_counter()
  found = replay.measure_embedded(20_000, 0.2, tmp_path)
  check_replay(found, 20_000, time.perf_counter() - started)
  # Nothing of what was saved is left.
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.acme
@pytest.mark.parametrize("transitions_per_item", [1, 4])
def test_reverb_of_both_kinds(transitions_per_item, tmp_path):
  from launchers.benchmarks import reverb_replay

  started = time.perf_counter()
  found = reverb_replay.measure(2_000, 0.2, tmp_path, transitions_per_item)
  elapsed = time.perf_counter() - started
  assert set(found) == {"local", "separate"}
  for each in found.values():
    check_replay(each, 2_000, elapsed)
  assert not list(tmp_path.iterdir())


def check_loop(found):
  """Raises AssertionError unless the loop's parts are those of its rate."""
  low, high = found["share_of_learner_rate_spread"]
  assert 0 < low <= found["share_of_learner_rate"] <= high
  budget = found["milliseconds_per_step"]
  assert set(budget) == {
    *("act", "wait for update", "dispatch", "environment", "insert"),
    *("sample", "rest"),
  }
  assert all(milliseconds > 0 for milliseconds in budget.values())
  # Of all turns, and of the median one: the slowest and the fastest of ten.
  assert sum(budget.values()) == pytest.approx(
    1e3 / found["environment_steps_per_second"], rel=0.9
  )
  assert found["update_alone_milliseconds"] == pytest.approx(
    1e3 / found["learner_only_steps_per_second"]
  )
  assert found["peak_memory_bytes"] > 2**20


@pytest.mark.slow
@pytest.mark.acme
def test_the_loop_on_reverb():
  check_loop(loop.measure("cartpole:balance", 80, "reverb", 4))


@pytest.mark.slow
def test_the_loop_in_a_process_of_its_own():
  check_loop(benchmark._run_module("loop", "cartpole:balance", 40, "auto", 1))


def check_rates(found, num_steps, elapsed):
  """Raises AssertionError unless each is of steps that were made by then."""
  assert set(found) == {"acting_steps_per_second", "learning_steps_per_second"}
  assert all(rate > (num_steps - 1) / elapsed for rate in found.values())


@pytest.mark.slow
@pytest.mark.parametrize(
  ("agent", "num_envs"),
  [
    ("qsm", 2),
    ("official", 1),
    pytest.param("sac", 1, marks=pytest.mark.acme),
  ],
)
def test_environment_steps_per_second(agent, num_envs, monkeypatch):
  # Replay must hold a batch before updates begin.
  monkeypatch.setattr(rates, "_WARM_UP_STEPS", 256)
  started = time.perf_counter()
  found = rates.measure(agent, num_envs, 40)
  check_rates(found, 40, time.perf_counter() - started)


@pytest.mark.slow
@pytest.mark.parametrize("module", [("rates", "qsm", 1), ("plain_loop",)])
def test_environment_steps_per_second_in_a_process_of_its_own(module):
  started = time.perf_counter()
  found = benchmark._run_module(*module, 40)
  check_rates(found, 40, time.perf_counter() - started)


def test_answers_at_once():
  started = time.perf_counter()
  found = start.measure_answers("local", repeats=1)
  assert set(found) == set(start.COMMANDS)
  assert 0 < sum(found.values()) < time.perf_counter() - started


@pytest.mark.slow
def test_first_update():
  found = start.measure_first_update("cartpole:balance", repeats=1)
  # What was compiled is kept: by far the most of what it takes.
  assert 0 < found["warm_seconds"] < found["cold_seconds"]


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
