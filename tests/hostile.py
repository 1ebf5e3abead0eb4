"""Generated damage for every reader of every command, and what must hold of the answer.

    python tests/hostile.py                        # 1,000 cases a group: half an hour on a core
    python tests/hostile.py toc encode --cases 50  # some groups, fewer cases

A case is a small world of files in which one or two are damaged (types swapped, keys missing, numbers huge, bytes
flipped, files cut, or something that is no file), and a command that reads them. The command runs in a forked process,
through `hdcid_cli.main.run`. It may cope (status 0, or 3 where a part is skipped), or refuse with status 2 and one
sentence that names the file. It must not crash, hang, take a gigabyte, show an internal error, or touch other files.

`test_hostile.py` does the same with a few cases a group.
"""

import argparse
import contextlib
import sys
from collections import Counter
from pathlib import Path

from hostile_answers import Answer, attempt
from hostile_groups import GROUPS, Case, Group
from hostile_worlds import world
from hypothesis import HealthCheck, Phase, given, seed, settings


def sweep(name: str, original: Path, cases: int, number: int, keep: Path | None) -> Counter:
    """So many cases of a group in copies of its world; how many went wrong, by what."""
    group, found, total = GROUPS[name], Counter(), Counter()

    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @seed(number)
    @given(Group.cases(group, original))
    def go(case):
        answer = attempt(group, case, original)
        total[answer.status] += 1
        if answer.problems:
            found[", ".join(answer.problems)] += 1
            if keep is not None:
                _keep(keep / f"{name}-{sum(total.values()):04d}", case, answer)

    go()

    wrong = sum(found.values())
    print(
        f"{name:10} {sum(total.values()):5} cases, {wrong:4} fall short; statuses {dict(sorted(total.items()))}",
        flush=True,
    )
    for problem, count in found.most_common():
        print(f"{'':10} {count:5} {problem}", flush=True)
    return found


def _keep(folder: Path, case: Case, answer: Answer) -> None:
    """Write a case down, to look into it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, change in enumerate(case.changes):
        if isinstance(change.content, bytes):
            (folder / f"{number}-{Path(change.path).name}").write_bytes(change.content)
    text = (
        f"{' '.join(case.arguments)}\n{case.changes}\n{answer.status} {answer.seconds:.1f} s {answer.peak >> 20} MiB\n"
    )
    (folder / "case.txt").write_text(f"{text}{answer.problems}\n{answer.said}", encoding="utf-8", errors="replace")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", default=list(GROUPS), help=", ".join(GROUPS))
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder to write the cases to that fall short")
    chosen = parser.parse_args()
    keep, wrong = chosen.keep and chosen.keep.resolve(), 0
    with contextlib.ExitStack() as stack:
        worlds: dict[str, Path] = {}
        for name in chosen.groups or GROUPS:
            kind = GROUPS[name].world
            worlds[kind] = worlds.get(kind) or stack.enter_context(world(kind))
            wrong += sum(sweep(name, worlds[kind], chosen.cases, chosen.seed, keep).values())
    sys.exit(1 if wrong else 0)
