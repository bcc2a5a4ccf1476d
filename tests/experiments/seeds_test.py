"""Tests of a run's seeds: those of different purposes never meet."""

import itertools

import jax
import numpy as np

from acme_qsm.experiments import seeds


def test_purposes_have_words_of_their_own():
  numbers = [
    numbers
    for length in range(4)
    for numbers in itertools.product((0, 1, 2**32 - 1, 2**32), repeat=length)
  ]
  names = ("a", "aa", "b", "\0", "")
  purposes = [(name, number) for name in names for number in numbers]
  words = {seeds.spawn_key(*purpose) for purpose in purposes}
  assert len(words) == len(purposes)


def _states(words):
  """What numpy makes of them, at length."""
  return tuple(np.random.SeedSequence(7, spawn_key=words).generate_state(4))


def test_a_zero_more_is_another_purpose():
  # Not so where numbers are entropy.
  first, second = ([7, 1], [7, 1, 0])
  np.testing.assert_array_equal(
    *(np.random.SeedSequence(e).generate_state(4) for e in (first, second))
  )
  purposes = [("a", ()), ("a", (0,)), ("a", (0, 0)), ("a", (0, 0, 0))]
  assert len({_states(seeds.spawn_key(*purpose)) for purpose in purposes}) == 4


def test_no_two_purposes_of_a_run_meet():
  run = seeds.Seeds(0)
  numbers = range(3)
  integers = [run.evaluation_environment(steps) for steps in numbers]
  keys = [run.learner_key()]
  keys += [
    run.evaluator_key(steps, restarts)
    for steps in numbers
    for restarts in numbers
  ]
  for steps, index, restarts in itertools.product(numbers, repeat=3):
    keys.append(run.actor_key(steps, index, restarts))
    integers += [
      run.environment(steps, index, restarts, number) for number in numbers
    ]
  found = {tuple(np.asarray(key).tolist()) for key in keys}
  assert len(found) == len(keys)
  assert len(set(integers)) == len(integers)
  assert all(0 <= seed < 2**32 for seed in integers)


def test_each_run_has_seeds_of_its_own_and_keeps_them():
  first, second, again = seeds.Seeds(0), seeds.Seeds(1), seeds.Seeds(0)
  assert first.environment(0) != second.environment(0)
  assert first.environment(0) == again.environment(0)
  assert not np.array_equal(first.learner_key(), second.learner_key())
  np.testing.assert_array_equal(first.actor_key(5), again.actor_key(5))
  # As whatever makes keys takes it.
  assert jax.random.uniform(first.learner_key()) != jax.random.uniform(
    second.learner_key()
  )
