"""Tests of the pictures: that they show the data that is in the logs."""

import itertools
import threading

import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest

from acme_qsm.experiments.records import loggers
from acme_qsm.experiments.records import plotting


@pytest.fixture
def figures(monkeypatch):
  """Collects the figures that are drawn."""
  drawn = []
  save = matplotlib.figure.Figure.savefig

  def collect(self, *args, **kwargs):
    drawn.append(self)
    return save(self, *args, **kwargs)

  monkeypatch.setattr(matplotlib.figure.Figure, "savefig", collect)
  return drawn


def _write(directory, label, **columns):
  logger = loggers.make_logger_factory(directory)(label)
  for row in zip(*columns.values(), strict=True):
    logger.write(dict(zip(columns, row, strict=True)))


def _evaluate(directory, steps, returns):
  _write(directory, "evaluator", actor_steps=steps, episode_return=returns)


def _write_run(directory):
  steps = np.arange(1, 11) * 1000
  noise = np.random.default_rng(0).normal(0, 20, 10)
  returns = 800 * (1 - np.exp(-steps / 4000)) + noise
  _write(
    directory,
    "evaluator",
    actor_steps=steps,
    episode_return=returns,
    episode_return_std=np.full(10, 30.0),
  )
  _write(directory, "actor", actor_steps=steps, episode_return=returns - 50)
  _write(
    directory,
    "learner",
    actor_steps=steps,
    critic_loss=np.exp(-steps / 4000),
    denoiser_loss=steps * 1e-4 - 0.5,
    q_value=steps * 1e-2,
  )
  return steps, returns


def _lines(axes):
  return [np.stack(line.get_data()) for line in axes.get_lines()]


def _texts(axes):
  return [text.get_text() for text in axes.texts]


def test_the_picture_shows_what_was_logged(tmp_path, figures):
  steps, returns = _write_run(tmp_path)
  path = plotting.plot_learning_curve(tmp_path, "cartpole:swingup")
  assert path == tmp_path / "learning_curve.png"
  pixels = matplotlib.image.imread(path)
  assert pixels.shape[0] > 600
  assert pixels.shape[1] > 800

  main, critic, denoiser, q_value = figures[0].axes
  assert main.get_title(loc="left") == "cartpole:swingup"
  assert main.get_xlabel() == "environment steps"
  assert main.get_ylabel() == "episode return"
  training, evaluation = _lines(main)
  np.testing.assert_allclose(training, [steps, returns - 50])
  np.testing.assert_allclose(evaluation, [steps, returns])
  (band,) = main.collections
  (box,) = [p.get_extents() for p in band.get_paths()]
  np.testing.assert_allclose(
    [box.ymin, box.ymax], [returns.min() - 30, returns.max() + 30]
  )
  assert _texts(main) == [f"{returns[-1]:.0f}"]
  legend = [text.get_text() for text in main.get_legend().get_texts()]
  assert legend == ["training episodes", "evaluation mean ± standard deviation"]
  assert critic.get_title(loc="left") == "Critic loss"
  assert q_value.get_title(loc="left") == "Q value"
  # One spans a factor of 9, the other is not even positive.
  assert critic.get_yscale() == "log"
  assert denoiser.get_yscale() == "linear"
  for panel, key in ((critic, "critic_loss"), (q_value, "q_value")):
    np.testing.assert_allclose(
      _lines(panel)[0],
      [steps, loggers.read_csv(tmp_path / "logs" / "learner.csv")[key]],
    )


@pytest.mark.parametrize("missing", ["evaluator", "actor", "learner"])
@pytest.mark.parametrize("how", ["absent", "header"])
def test_any_log_may_be_missing(tmp_path, figures, missing, how):
  _write_run(tmp_path)
  path = tmp_path / "logs" / f"{missing}.csv"
  header = path.read_text().splitlines()[0] + "\n"
  path.unlink()
  if how != "absent":
    path.write_text(header)
  plotting.plot_learning_curve(tmp_path, "task")
  expected = [1, 1, 1, 1]
  if missing == "learner":
    expected = [2] if how == "absent" else [2, 0, 0, 0]
  assert [len(axes.get_lines()) for axes in figures[0].axes] == expected


def test_no_logs_at_all(tmp_path, figures):
  (tmp_path / "logs").mkdir()
  (tmp_path / "logs" / "actor.csv").touch()
  (tmp_path / "logs" / "learner.csv").write_text("learner_steps\n1\n")
  plotting.plot_learning_curve(tmp_path, "task")
  (returns,) = figures[0].axes
  assert _texts(returns) == ["no data yet"]


@pytest.mark.parametrize("num_metrics", [1, 3, 4, 5, 7, 12, 14])
def test_whatever_a_method_measures_has_a_panel(tmp_path, figures, num_metrics):
  names = [f"metric_{i}" for i in range(num_metrics)]
  steps = np.arange(1, 50)
  metrics = {name: steps % (3 + i) for i, name in enumerate(names)}
  counted = {"learner_steps": steps, "learner_walltime": steps}
  _write(tmp_path, "learner", **metrics, actor_steps=steps, **counted)
  plotting.plot_learning_curve(tmp_path, "task")
  _, *panels = figures[0].axes
  titles = [panel.get_title(loc="left") for panel in panels]
  assert titles == [f"Metric {i}" for i in range(min(num_metrics, 12))]
  for panel, name in zip(panels, names, strict=False):
    np.testing.assert_array_equal(_lines(panel)[0], [steps, metrics[name]])
  # None lies upon another.
  boxes = [panel.get_window_extent() for panel in panels]
  for first, second in itertools.combinations(boxes, 2):
    assert not first.overlaps(second)
    assert first.width == pytest.approx(second.width, rel=0.2)
  more = figures[0].get_supxlabel()
  assert more == (
    "2 more metrics are in logs/learner.csv" if num_metrics == 14 else ""
  )


def test_rows_that_lack_a_value_are_left_out(tmp_path, figures):
  _evaluate(tmp_path, [1, 2, 3, 4], [1.0, np.nan, 3.0, np.inf])
  path = tmp_path / "logs" / "learner.csv"
  path.write_text("actor_steps,critic_loss,other\n1,1,\n2,0,\n3,3,\n")
  plotting.plot_learning_curve(tmp_path, "task")
  main, critic, other = figures[0].axes
  np.testing.assert_array_equal(_lines(main)[0], [[1, 3], [1, 3]])
  # A loss of 0 has no place on a logarithmic scale.
  assert critic.get_yscale() == "linear"
  assert _texts(other) == ["no data yet"]


def test_long_logs_are_averaged(tmp_path, figures):
  path = tmp_path / "logs" / "learner.csv"
  path.parent.mkdir()
  rows = "".join(f"{i},{i % 2}\n" for i in range(40_000))
  path.write_text("actor_steps,q_value\n" + rows)
  plotting.plot_learning_curve(tmp_path, "task")
  steps, values = _lines(figures[0].axes[1])[0]
  assert steps.size <= 150
  np.testing.assert_allclose(values, 0.5, atol=0.01)
  assert steps[0] < 200
  assert steps[-1] > 39_800


def test_comparison(tmp_path, figures):
  _evaluate(tmp_path / "a0", [0, 10, 20], [0, 10, 20])
  # Fewer and other steps, and more of them: interpolated, cut at 20.
  _evaluate(tmp_path / "a1", [0, 15, 30], [2] * 3)
  _evaluate(tmp_path / "b0", [5], [123.4])
  (tmp_path / "nothing").mkdir()
  png = tmp_path / "figure.png"
  runs = {"a": ["a0", "a1", "nothing"], "b": ["b0"], "c": ["nothing"]}
  plotting.plot_learning_curves(
    {label: [tmp_path / name for name in runs[label]] for label in runs},
    png,
    "two tasks",
  )
  assert matplotlib.image.imread(png).shape[2] == 4
  (axes,) = figures[0].axes
  thin0, thin1, mean, b = _lines(axes)
  np.testing.assert_allclose(thin0, [[0, 10, 20], [0, 10, 20]])
  np.testing.assert_allclose(thin1, [[0, 15, 30], [2, 2, 2]])
  np.testing.assert_allclose(mean, [[0, 10, 15, 20], [1, 6, 8.5, 11]])
  np.testing.assert_allclose(b, [[5], [123.4]])
  assert _texts(axes) == ["11", "123"]
  legend = [text.get_text() for text in axes.get_legend().get_texts()]
  assert legend == ["a (2 runs)", "b"]


def test_curves_and_their_labels_can_be_told_apart(tmp_path, figures):
  count = 2 * len(plotting.COLORS) + 1
  ends = [400.0, 985.0, 990.0, 991.0, *range(count - 4)]
  for name, end in enumerate(ends):
    _evaluate(tmp_path / str(name), [0, 10], [0.0, end])
  plotting.plot_learning_curves(
    {str(name): [tmp_path / str(name)] for name in range(count)},
    tmp_path / "a.png",
    "close",
  )
  (axes,) = figures[0].axes
  looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
  assert len(looks) == count
  assert _texts(axes)[-4:] == ["400", "985", "990", "991"]
  boxes = [text.get_window_extent() for text in axes.texts]
  for below, above in itertools.pairwise(boxes):
    assert above.y0 >= below.y1 - 0.5
  # Nor are they beside nothing: their middles are beside the panel.
  assert (boxes[-1].y0 + boxes[-1].y1) / 2 <= axes.get_window_extent().y1 + 0.5


def test_drawing_leaves_no_trace_and_works_off_the_main_thread(tmp_path):
  _write_run(tmp_path)
  before = set(tmp_path.iterdir())
  thread = threading.Thread(
    target=plotting.plot_learning_curve, args=(tmp_path, "task")
  )
  thread.start()
  thread.join()
  assert set(tmp_path.iterdir()) - before == {tmp_path / "learning_curve.png"}


def test_a_failed_drawing_keeps_the_old_picture(tmp_path, monkeypatch):
  _write_run(tmp_path)
  path = plotting.plot_learning_curve(tmp_path, "task")
  old = path.read_bytes()

  def fail(*unused_arguments):
    raise OSError("No space left")

  monkeypatch.setattr("os.fsync", fail)
  with pytest.raises(OSError, match="No space"):
    plotting.plot_learning_curve(tmp_path, "another title")
  assert path.read_bytes() == old
  assert not [*tmp_path.glob(".*")]
