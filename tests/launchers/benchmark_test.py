"""The benchmark: what it counts, and that each row of each table is there."""

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
from launchers.benchmarks import launched
from launchers.benchmarks import learner
from launchers.benchmarks import loop
from launchers.benchmarks import methods
from launchers.benchmarks import plain_loop
from launchers.benchmarks import replay
from launchers.benchmarks import report
from launchers.benchmarks import runs
from launchers.benchmarks import subject
from launchers.benchmarks import timing

QUICK, USUAL, FULL = (
  timing.Effort(*how) for how in [(True, False), (False, False), (False, True)]
)


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
  assert timing.summarize([*range(11)]) == (1.0, 5.0, 9.0)
  assert timing.summarize([*range(11)], 1e3) == (1e3, 5e3, 9e3)


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


def test_another_process_returns_and_raises():
  assert timing.isolate(os.getpid) != os.getpid()
  with pytest.raises(ModuleNotFoundError, match="no_such_module"):
    timing.isolate(__import__, "no_such_module")


def test_memory():
  before, _ = replay.read_memory()
  data = np.ones(1 << 23)
  data_bytes = data.nbytes
  assert replay.read_memory()[0] >= before + data_bytes / 2
  del data
  now, peak = replay.read_memory(os.getpid())
  assert peak >= before + data_bytes / 2
  assert peak >= now


def test_parts_of_a_loop_take_none_of_the_time_of_those_within(monkeypatch):
  now = 0.0
  monkeypatch.setattr(loop.time, "perf_counter", lambda: now)

  class Parts:
    def outer(self):
      nonlocal now
      now += 1.0
      self.inner()

    def inner(self):
      nonlocal now
      now += 2.0

  clock = loop.Clock()
  parts = clock.time(clock.time(Parts(), "inner", "inner"), "outer", "outer")
  for _ in range(2):
    parts.outer()
  assert clock.calls == {"inner": 2, "outer": 2}
  assert clock.seconds == {"inner": 4.0, "outer": 2.0}


def test_cases():
  quick, usual, full = map(learner.list_cases, (QUICK, USUAL, FULL))
  # What the others are compared with comes first.
  assert quick[0] == usual[0] == full[0] == learner.STANDARD
  assert len(usual) == 1 + sum(len(axis) - 1 for axis in learner.AXES.values())
  assert len(full) == 3 * 3 * 2 * 3 + 2
  assert all(case in usual for case in quick)
  assert all(case in full for case in usual)
  assert all(full.count(case) == 1 for case in full)


@pytest.mark.parametrize(
  ("num_fused", "num_seeds", "shape"),
  [(1, 1, ()), (3, 2, (3, 2))],
)
def test_a_call_makes_the_gradient_steps_it_says(num_fused, num_seeds, shape):
  config = subject.make_config(num_denoising_steps=2, batch_size=8, width=16)
  step = subject.Step(config, num_fused=num_fused, num_seeds=num_seeds)
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
  assert evaluations.count(config) == expected


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
    core = subject.make_core(config)
    jax.eval_shape(
      subject.make_step(core),
      jax.eval_shape(core.init, jax.random.key(0)),
      subject.make_transitions(config.batch_size),
    )
  with pytest.raises(ValueError, match="configuration 'Mine'"):
    evaluations.count(type("Mine", (acme_qsm.QSMConfig,), {})())


def test_the_memory_of_an_update_grows_with_its_batch():
  sizes = [
    subject.Step(
      subject.make_config(num_denoising_steps=2, batch_size=size, width=16)
    ).memory_bytes
    for size in (8, 1024)
  ]
  # At least by the batch itself.
  batch = 4 * (2 * subject.OBSERVATION_SIZE + subject.ACTION_SIZE + 2)
  assert sizes[1] - sizes[0] >= (1024 - 8) * batch


def test_the_limit_is_what_its_operations_say():
  chain, flops = learner.make_limit(batch_size=8, width=16)
  assert flops == 24 * 2 * 8 * 16 * 16
  # The products alone: its shape, and neither zero nor infinite.
  result = np.asarray(jax.block_until_ready(chain()))
  assert result.shape == (8, 16)
  assert 0 < np.abs(result).max() < np.inf


def make_row(milliseconds=1.0, **sizes):
  times = dict.fromkeys(("ms_low", "ms_per_call", "ms_high"), milliseconds)
  return {**learner.STANDARD, **sizes, **times}


def test_axes_are_found():
  cases = [
    make_row(),
    make_row(width=512),
    make_row(batch_size=4096),
    make_row(batch_size=1024),
    make_row(batch_size=1024, width=512),
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
  assert not report.plot([make_row()], [], path)
  assert not path.exists()
  program = [
    {"actors": number, "environment_steps_per_second": 60.0 * number}
    for number in (1, 2)
  ]
  assert report.plot([make_row(), make_row(3.0, width=512)], program, path)
  assert path.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_the_core_s_parts_from_the_command_line(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(learner, "list_cases", lambda _: [learner.STANDARD])
  command = ["--quick", "--parts", "learner", "acting", "methods"]
  assert benchmark.main([*command, "--output", str(tmp_path)]) == 0
  found = json.loads((tmp_path / "benchmark.json").read_text())
  assert set(found) == {"machine", "learner", "acting", "methods"}
  assert found["machine"]["cores"] > 0

  (case,) = found["learner"]["learner"]
  assert learner.STANDARD.items() <= case.items()
  # The two hidden layers of a denoiser and of two critics, for 256 transitions
  # in 5 denoising steps and in what learns: each a product of 2 x 256 x 256.
  assert case["gflop_per_step"] > 5 * 256 * 2 * 256 * 256 / 1e9
  assert case["steps_per_second"] == pytest.approx(1e3 / case["ms_per_call"])
  assert case["ms_low"] <= case["ms_per_call"] <= case["ms_high"]
  # As medians of three, of rates and of their ratios.
  assert case["share_of_limit"] == pytest.approx(
    case["steps_per_second"] * case["gflop_per_step"] / case["limit_gflops"],
    rel=0.8,
  )

  for row, size in zip(found["acting"]["acting"], (1, 16, 256), strict=True):
    assert row["observations"] == size
    assert 0 < row["median_ms"] <= row["p99_ms"]
    assert row["actions_per_second"] == pytest.approx(
      1e3 * size / row["median_ms"]
    )

  rows = found["methods"]["methods"]
  assert [row["method"] for row in rows] == list(methods.QUICK)
  assert rows[0]["updates_of_standard"] == 1.0
  configs = methods.list_configs()
  for row in rows:
    config, standard = configs[row["method"]], configs[methods.STANDARD]
    assert row["by_evaluations"] == evaluations.count(
      config
    ) / evaluations.count(standard)
    assert row["memory_mb"] == subject.Step(config).memory_bytes / 1e6
    assert row["updates_of_standard"] == pytest.approx(
      row["update_ms"] / rows[0]["update_ms"], rel=0.8
    )
    assert row["act_ms"] > 0
  (parts,) = found["methods"]["parts_ms"]
  assert parts.pop("parts of") == methods.QUICK[-1]
  assert set(parts) == {
    *("target action", "critics' gradient", "reverse samples"),
    *("critics at them", "whole update"),
  }
  assert all(milliseconds > 0 for milliseconds in parts.values())
  # They are printed, too.
  assert report.format_table(rows) in capsys.readouterr().out


LOOPS = {
  f"{name}, {replay}": ("measure_loop", task, 3_000, kind, per_item)
  for name, task in (
    *(("cartpole", "cartpole:swingup"), ("cheetah", "cheetah:run")),
  )
  for replay, kind, per_item in (
    ("embedded", "embedded", 1),
    ("reverb", "reverb", 1),
    ("reverb, 16 per item", "reverb", 16),
  )
}
RATES = {
  "environments": {
    str(n): ("measure_rates", "qsm", n, 3_000) for n in (1, 5, 16)
  },
  "sac": {
    "qsm": ("measure_rates", "qsm", 1, 3_000),
    "acme_sac": ("measure_rates", "sac", 1, 3_000),
  },
  "official": {
    "plain": ("measure", 500),
    "qsm": ("measure_rates", "official", 1, 500),
  },
}


@pytest.mark.parametrize(
  ("part", "asked", "expected"),
  [
    *(
      (part, 3 * [*cases.values()], {part: {name: None for name in cases}})
      for part, cases in RATES.items()
    ),
    (
      "loop",
      [*LOOPS.values()],
      {
        "loop": {name: i + 1 for i, name in enumerate(LOOPS)},
        "ms_per_step": {name: 2 * (i + 1) for i, name in enumerate(LOOPS)},
      },
    ),
    (
      "replay",
      [
        ("measure_embedded", 1_000_000, 5.0, "OUT", 1),
        ("_measure_reverb", 1_000_000, 5.0, "OUT", 1),
        ("_measure_reverb", 1_000_000, 5.0, "OUT", 16),
      ],
      {
        "replay": {
          "embedded": 1,
          "reverb, local": 2,
          "reverb, separate": 4,
          "reverb, 16 per item, local": 3,
          "reverb, 16 per item, separate": 6,
        }
      },
    ),
    (
      "start",
      [
        ("answers", "local"),
        ("answers", "distributed"),
        ("first update", "cartpole:swingup"),
        ("first update", "cheetah:run"),
      ],
      {
        "answers": {"local": 1, "distributed": 2},
        "first_update": {"cartpole": 3, "cheetah": 4},
      },
    ),
  ],
)
def test_rows_of_each_table(
  part, asked, expected, tmp_path, monkeypatch, capsys
):
  """What is found of the n-th that is measured are n and its multiples."""
  calls = []

  def measure(*what):
    calls.append(tuple("OUT" if each == tmp_path else each for each in what))
    return len(calls)

  def isolate(function, *arguments):
    n = measure(function.__name__, *arguments)
    return {
      "measure_loop": {"rate": n, "parts": {"act": 2 * n}},
      "measure_embedded": {"": {"rate": n}},
      "_measure_reverb": {
        ", local": {"rate": n},
        ", separate": {"rate": 2 * n},
      },
    }.get(function.__name__, {"rate": n})

  monkeypatch.setattr(timing, "isolate", isolate)
  for name, what in (("answers", "answers"), ("first_update", "first update")):
    monkeypatch.setattr(
      *(launched, f"measure_{name}"),
      lambda asked, repeats, what=what: {"rate": measure(what, asked)},
    )
  assert benchmark.main(["--parts", part, "--output", str(tmp_path)]) == 0
  assert calls == asked
  found = json.loads((tmp_path / "benchmark.json").read_text())[part]
  printed = capsys.readouterr().out
  assert list(found) == list(expected)
  for table, rows in expected.items():
    named = {next(iter(row.values())): row for row in found[table]}
    assert list(named) == list(rows)
    if part in RATES:
      # Of three turns, the second has the median.
      rows = {name: len(rows) + i + 1 for i, name in enumerate(rows)}
    assert [list(row.values())[1] for row in named.values()] == [*rows.values()]
    assert report.format_table(found[table]) in printed


def test_rows_of_programs(monkeypatch):
  asked = []

  def watch(process, workdir, seconds):
    command = process.args
    asked.append((seconds, command[command.index("--num_actors") + 1]))
    return {"rate": len(asked)}, {"learner": {"cores": 0.5}}

  monkeypatch.setattr(launched, "watch", watch)
  monkeypatch.setattr(launched.sys, "executable", "true")
  rows = list(launched.measure_program(USUAL))
  assert asked == [(40.0, "1"), (40.0, "2"), (40.0, "4")]
  assert [row for table, row in rows if table == "program"] == [
    {"actors": n, "rate": i + 1} for i, n in enumerate((1, 2, 4))
  ]
  assert [row for table, row in rows if table == "processes"] == [
    {"actors": n, "process": "learner", "cores": 0.5} for n in (1, 2, 4)
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
  (found,) = replay.measure_embedded(20_000, 0.2, tmp_path).values()
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
  assert set(found) == {", local", ", separate"}
  for each in found.values():
    check_replay(each, 2_000, elapsed)
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
  "how", [(), pytest.param(("reverb", 4), marks=pytest.mark.acme)]
)
def test_the_loop_in_a_process_of_its_own(how):
  found = timing.isolate(loop.measure_loop, "cartpole:balance", 160, *how)
  share = found["share_of_learner_rate"]
  assert 0 < found["share_low"] <= share <= found["share_high"]
  parts = found["parts"]
  assert parts.pop("update alone") == pytest.approx(
    1e3 / found["learner_only_steps_per_second"]
  )
  assert set(parts) == {
    *("act", "wait for update", "dispatch", "environment", "insert"),
    *("sample", "rest"),
  }
  assert all(milliseconds > 0 for milliseconds in parts.values())
  # Of all turns, and of the median one: the slowest and the fastest of ten.
  assert sum(parts.values()) == pytest.approx(
    1e3 / found["environment_steps_per_second"], rel=0.9
  )
  assert found["peak_memory_mb"] > 1


@pytest.mark.slow
@pytest.mark.parametrize(
  ("measure", "arguments"),
  [
    # Replay must hold a batch before updates begin.
    (runs.measure_rates, ("qsm", 2, 40, 256)),
    (runs.measure_rates, ("official", 1, 40, 256)),
    pytest.param(
      *(runs.measure_rates, ("sac", 1, 40, 256)), marks=pytest.mark.acme
    ),
    (plain_loop.measure, (40,)),
  ],
)
def test_environment_steps_per_second(measure, arguments):
  started = time.perf_counter()
  found = timing.isolate(measure, *arguments)
  elapsed = time.perf_counter() - started
  # Each is of steps that were made by then.
  assert set(found) == {"acting_steps_per_second", "learning_steps_per_second"}
  assert all(rate > (40 - 1) / elapsed for rate in found.values())


def test_answers_at_once():
  started = time.perf_counter()
  found = launched.measure_answers("local", repeats=1)
  assert set(found) == set(launched.COMMANDS)
  assert 0 < sum(found.values()) < time.perf_counter() - started


@pytest.mark.slow
def test_first_update():
  found = launched.measure_first_update("cartpole:balance", repeats=1)
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
