"""Tests of the launcher that compares runs."""

import pytest

from acme_qsm.experiments.records import loggers
from launchers import compare


def _write_run(path, returns):
  logger = loggers.make_logger_factory(path)("evaluator")
  for i, value in enumerate(returns):
    logger.write({"actor_steps": 5000 * (i + 1), "episode_return": value})


def test_prints_each_runs_last_returns_and_draws_them(tmp_path, capsys):
  _write_run(tmp_path / "easy" / "seed_0", [1.0, 2.0, 30.0, 50.0])
  _write_run(tmp_path / "easy" / "seed_1", [1.0, 2.0, 3.0])
  _write_run(tmp_path / "alone", [7.0])
  _write_run(tmp_path / "other" / "easy" / "seed_0", [8.0])
  # A picture, and a run that was set back to before its first evaluation.
  (tmp_path / "easy" / "learning_curves.png").touch()
  _write_run(tmp_path / "easy" / "seed_2", [1.0])
  loggers.rewind(tmp_path / "easy" / "seed_2", 0)
  png = tmp_path / "curves.png"
  other = tmp_path / "other" / "easy"
  easy = tmp_path / "easy"
  directories = [str(easy), str(tmp_path / "alone"), str(other)]
  assert compare.main([*directories, "--png", str(png)]) == 0
  assert capsys.readouterr().out.splitlines() == [
    f"{easy}  seed_0  40.0",
    f"{easy}  seed_1  2.5",
    "alone  alone  7.0",
    f"{other}  seed_0  8.0",
    str(png),
  ]
  assert png.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "Name one directory"),
    (["nowhere"], "no run with evaluations in nowhere"),
    (["nowhere", "--last", "0"], "last must be positive, got 0"),
  ],
)
def test_wrong_input(arguments, message, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert compare.main(arguments) == 2
  assert message in capsys.readouterr().err
  assert list(tmp_path.iterdir()) == []
