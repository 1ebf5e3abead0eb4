"""Stopping: SIGTERM means what Ctrl-C means, and a long job stops where it can go on later."""

import atexit
import os
import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_came = False


def listen() -> None:
    """From now on both signals raise KeyboardInterrupt; one that this process was told to ignore stays ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    atexit.register(_ignore)  # before others, so that it is called after them


def _interrupt(number, frame):
    global _came
    _came = True
    raise KeyboardInterrupt


def forget() -> None:
    """A new command begins: what came before it is over."""
    global _came
    _came = False


def came() -> bool:
    """Whether a signal has come since `forget`; a library may have made another error of its KeyboardInterrupt."""
    return _came


def end(status: int) -> None:
    """The work is done and its status known: from now on a signal ends the process with it, and says nothing."""
    for number in SIGNALS:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, lambda *_: os._exit(status))


def _ignore() -> None:
    """Keep signals away from the last moments, in which Python gives them their first meaning back.

    Taking down torch needs a third of a second. And Python ends itself by SIGINT if ever a KeyboardInterrupt went
    through code that it made of a string, as dataclasses do, whatever became of it then.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class Interruption:
    """Remembers SIGINT and SIGTERM, so that the step under way is finished and saved; a second SIGINT stops at once.

    Within `with Interruption() as interruption:` the job looks at `interruption.asked` between its steps. In another
    thread than the main one, where Python lets nobody handle signals, it is never asked.
    """

    def __enter__(self):
        self.asked = False
        try:
            self._previous = {number: signal.signal(number, self._ask) for number in SIGNALS}
        except ValueError:
            self._previous = {}
        # A KeyboardInterrupt that came to nothing, as in a destructor of a library, is not lost.
        self.asked |= _came and _interrupt in self._previous.values()
        return self

    def _ask(self, number, frame):
        if self.asked and number == signal.SIGINT:
            _interrupt(number, frame)
        self.asked = True

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
