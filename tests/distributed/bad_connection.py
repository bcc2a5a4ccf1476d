"""A connection that loses some answers, and delays others."""

import contextlib
import random
import socket
import threading
import time

from acme_qsm.replay.listening import addresses


class BadConnection(contextlib.AbstractContextManager):
  """Stands between a server and its clients, and loses or delays answers.

  Attributes:
    address: where to call it.
    num_lost: answers that never arrived, their connection closed instead.
    num_delayed: answers that arrived late.
  """

  def __init__(self, server, share, seconds):
    host, port = server.rsplit(":", 1)
    self._server = (host, int(port))
    self._share = share
    self._seconds = seconds
    self._random = random.Random(0)
    self._socket = socket.create_server((addresses.LOOPBACK, 0))
    self.address = f"{addresses.LOOPBACK}:{self._socket.getsockname()[1]}"
    self.num_lost = self.num_delayed = 0
    threading.Thread(target=self._accept, daemon=True).start()

  def __exit__(self, *unused_exception):
    self._socket.close()

  def _accept(self):
    while True:
      try:
        client, _ = self._socket.accept()
      except OSError:
        return
      server = socket.create_connection(self._server)
      for pair in ((client, server, False), (server, client, True)):
        threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

  def _pass_on(self, source, target, answers):
    try:
      while data := source.recv(1 << 20):
        if answers and self._random.random() < self._share:
          if self._random.random() < 0.5:
            self.num_lost += 1
            break
          self.num_delayed += 1
          time.sleep(self._seconds)
        target.sendall(data)
    except OSError:
      pass
    for end in (source, target):
      end.close()
