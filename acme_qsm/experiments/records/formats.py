"""The version of what a run leaves: of `config.json` and of checkpoints.

A change of what is in them raises `VERSION`: a file with another version is
refused.
"""

from collections.abc import Mapping
from typing import Any

import acme_qsm

VERSION = 3
VERSION_KEY = "format_version"
_LIBRARY_KEY = "library_version"


def header() -> dict[str, Any]:
  """What a file says of its format, and of the library that writes it."""
  return {VERSION_KEY: VERSION, _LIBRARY_KEY: acme_qsm.__version__}


def refusal(what: str, content: Mapping[str, Any]) -> str | None:
  """Says why a file's format cannot be read, and what to do.

  Args:
    what: the file.
    content: what it holds, `header` included.

  Returns:
    The reason; None if it can be read.
  """
  version = content.get(VERSION_KEY)
  if version == VERSION:
    return None
  return (
    f"{what} has format version {version!r}; acme_qsm {acme_qsm.__version__} "
    f"reads {VERSION} alone. Go on with the release that wrote it "
    f"({content.get(_LIBRARY_KEY, 'an older one')}), or start another run."
  )
