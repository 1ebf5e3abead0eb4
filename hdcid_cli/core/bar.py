"""The bar of `core/progress.py`, apart from it so that tqdm is imported by who shows one."""

from tqdm import tqdm
from tqdm.utils import disp_len


class ProgressBar(tqdm):
    """A tqdm bar that never ends within a phrase: of what the work says of itself, the phrases that find no room on
    the line are left out, the last ones first.
    """

    @staticmethod
    def format_meter(*numbers, ncols=None, postfix=None, bar_format=None, **meter):
        phrases = str(postfix or "").split(", ")
        bare = bar_format and bar_format.removesuffix(" {bar}")
        while ncols and len(phrases) > 1:
            line = tqdm.format_meter(*numbers, postfix=", ".join(phrases), bar_format=bare, **meter)
            if disp_len(line) <= ncols:
                break
            phrases.pop()
        return tqdm.format_meter(*numbers, ncols=ncols, postfix=", ".join(phrases), bar_format=bar_format, **meter)
