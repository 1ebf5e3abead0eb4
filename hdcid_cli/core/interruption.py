"""Stopping a long job where it can go on later."""

import signal


class Interruption:
    """Remembers SIGINT and SIGTERM, so that the step under way is finished and saved; a second SIGINT stops at once.

    Within `with Interruption() as interruption:` the job looks at `interruption.asked` between its steps.
    """

    def __enter__(self):
        self.asked = False
        self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, number, frame):
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
