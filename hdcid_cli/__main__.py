"""The program: `hdcid`, or `python -m hdcid_cli`; `torchrun -m hdcid_cli` starts it on several processes."""

import os
import sys


def main() -> None:
    """Run the command line and end the process with its exit status."""
    try:  # Ctrl-C may come while what follows is imported
        from hdcid_cli.core import interruption

        interruption.listen()
        _open_standard_streams()
        from hdcid_cli.main import run

        status = run(sys.argv[1:], {"debug": False})
        interruption.end(status)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)


def _open_standard_streams() -> None:
    """Give a process that was started with closed streams (`>&-`) empty ones.

    Otherwise the next file that it opens is its standard output, and what is said goes into that file.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", encoding="utf-8"))


if __name__ == "__main__":
    main()
