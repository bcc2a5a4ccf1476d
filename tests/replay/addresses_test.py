"""Addresses as text."""

import pytest

from acme_qsm.replay.listening import addresses


@pytest.mark.parametrize(
  ("host", "text"),
  [
    ("127.0.0.1", "127.0.0.1:80"),
    ("machine", "machine:80"),
    ("::1", "[::1]:80"),
    ("fd00::12", "[fd00::12]:80"),
  ],
)
def test_there_and_back(host, text):
  assert addresses.join(host, 80) == text
  assert addresses.split(text) == (host, 80)


@pytest.mark.parametrize("text", ["::1:80", "127.0.0.1", "[::1]", "host:port"])
def test_what_is_no_address(text):
  with pytest.raises(ValueError, match=r"brackets|invalid literal"):
    addresses.split(text)
