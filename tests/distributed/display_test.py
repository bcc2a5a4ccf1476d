"""What is shown of a run, without any run."""

import numpy as np

from acme_qsm.distributed.display import Display


def make_status(actor_states, learner_steps, learner=None, **replay):
  learner = learner or {}

  def node(state, metrics=None, silent_seconds=0.5):
    return {
      "state": state,
      "silent_seconds": silent_seconds,
      "restarts": 0,
      "metrics": metrics or {},
    }

  return {
    "phase": "acting",
    "nodes": {
      "learner": node(
        "learning",
        {**learner, "learner_steps": learner_steps, "waiting_share": 0.1},
      ),
      "replay": node("serving", replay, silent_seconds=42.0),
      **{
        f"actor_{i}": node(state, {"staleness": 10.0 * i})
        for i, state in enumerate(actor_states)
      },
    },
  }


def test_the_display():
  now = [100.0]
  display = Display(clock=lambda: now[0])
  display.fields(make_status(["starting"], 40))
  now[0] += 10.0
  fields = display.fields(
    make_status(
      ["acting", "starting", "acting"],
      140,
      size=900,
      inserts=1000,
      samples=8000,
    )
  )
  assert fields == {
    "phase": "acting",
    "learner steps": 140,
    "learner steps/s": 10.0,
    "learner waits": 0.1,
    "replay size": 900,
    "samples per insert": 8.0,
    "staleness": 20.0,
    "evaluation": None,
    "learner": "learning",
    "replay": "silent for 42 s",
    "actors": "2 acting, 1 starting",
  }
  # Back to a checkpoint: no negative rate.
  now[0] += 1.0
  assert display.fields(make_status([], 100))["learner steps/s"] is None
  now[0] += 2.0
  assert display.fields(make_status([], 130))["learner steps/s"] == 15.0


def test_whatever_a_learner_reports_is_shown():
  learner = {
    "critic_loss": 0.25,
    "temperature": np.float64(0.5),
    "checkpoint_failures": 2,
    "method": "a word",
  }
  display = Display()
  plain = display.fields(make_status(["acting"], 40))
  fields = display.fields(make_status(["acting"], 40, learner))
  assert {name: fields[name] for name in fields.keys() - plain.keys()} == {
    "critic loss": 0.25,
    "temperature": 0.5,
    "checkpoint failures": 2,
  }
  # None of them takes the place of what is shown of every run.
  fields = display.fields(
    make_status(["acting"], 40, {"actors": 1, "phase": 2})
  )
  assert fields["actors"] == "1 acting"
  assert fields["phase"] == "acting"
