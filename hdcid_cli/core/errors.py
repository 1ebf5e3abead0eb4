"""The errors that a user can act on.

A command raises one of these with a single sentence that says what is wrong,
where, and what to do; `hdcid_cli.main` prints the sentence to stderr and ends
with the error's exit status. Every other exception is a bug or the machine's.
"""

# Exit statuses, the same for every command.
DONE = 0
FAILED = 1
BAD_INPUT = 2
SOME_SKIPPED = 3
INTERRUPTED = 130


class HdcidError(Exception):
    """The work could not be done; the message is one sentence for the user."""

    exit_status = FAILED


class InputError(HdcidError):
    """Wrong usage, or input that is missing, broken or does not fit together."""

    exit_status = BAD_INPUT
