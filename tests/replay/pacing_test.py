"""What a configuration's pace is; that it never stops, see Reverb's tables'."""

import pytest

import acme_qsm
from acme_qsm.replay import pacing


def make_pace(**fields):
  return pacing.make_pace(
    acme_qsm.QSMConfig(
      **{
        "batch_size": 8,
        "num_sgd_steps_per_step": 1,
        "n_step": 3,
        "min_replay_size": 16,
        "samples_per_insert": 8.0,
        "samples_per_insert_tolerance": 0.1,
        "transitions_per_item": 1,
        **fields,
      }
    )
  )


@pytest.mark.parametrize(
  ("fields", "width"),
  [
    # A tenth of min_replay_size times samples_per_insert.
    ({"min_replay_size": 1000}, 0.1 * 1000 * 8.0),
    # An insert, and what is inserted at once at the end of an episode.
    ({"samples_per_insert": 20.0, "n_step": 3}, (1 + 3) * 20.0),
    ({"n_step": 9}, (1 + 9) * 8.0),
    ({"n_step": 9, "transitions_per_item": 5}, (5 + 9) * 8.0),
    # An insert, and four calls of the learner.
    ({"num_sgd_steps_per_step": 5}, 8.0 + 4 * 5 * 8),
    ({"transitions_per_item": 5}, 5 * 8.0 + 4 * 8),
  ],
)
def test_the_windows_width(fields, width):
  assert make_pace(**fields).half_width == width


def test_updates_per_step_say_the_same_of_updates():
  by_samples = make_pace(samples_per_insert=1.6)
  assert make_pace(updates_per_step=0.2) == by_samples
  # What replay's limiter is told does not count then.
  assert make_pace(updates_per_step=0.2, samples_per_insert=4.0) == by_samples


def test_items_are_whole():
  pace = make_pace(transitions_per_item=5)
  assert pace.min_size == 4
  assert pace.samples_per_insert == 5 * 8.0
  assert pace.middle == 4 * 5 * 8.0


def test_samples_due():
  pace = make_pace()
  assert pace.num_samples_due(0) == pace.num_samples_due(15) == 0.0
  # The insert that fills replay to its least size is the first to count.
  assert pace.num_samples_due(16) == 8.0
  assert pace.num_samples_due(20) == 5 * 8.0
