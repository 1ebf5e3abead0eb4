"""Published weights: where they are, and a cache that holds them, downloaded once and verified.

They lie in HDCID_HOME/weights (~/.cache/hdcid/weights). A download that was cut off goes on where it stopped, and
becomes visible under its name only when its digest is right.
"""

import fcntl
import hashlib
import os
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import torch

from hdcid_cli.core.errors import HdcidError, InputError
from hdcid_cli.core.paths import home_dir
from hdcid_cli.core.pickled import STAND_INS, NoArray, StoredArray
from hdcid_cli.core.progress import progress
from hdcid_cli.core.saved import read_saved

BLOCK = 1 << 20


@dataclass(frozen=True)
class Published:
    """A file of weights.

    Attributes:
        url: where it is published.
        algorithm, digest: of the whole file, hexadecimal; as many leading digits as its publisher tells.
    """

    url: str
    algorithm: str
    digest: str

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[1]


PUBLISHED = {
    # Keras without its classifier: Caffe's own weights, as in the published AVE features.
    "vgg19": Published(
        "https://storage.googleapis.com/tensorflow/keras-applications/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "md5",
        "253f8cb515780f3b799900260a226db6",
    ),
    "vgg19-torchvision": Published(
        "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        "sha256",
        "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
    ),
    "vggish": Published(
        "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
        "sha256",
        "10086976245803799d9194e9a73d9b6c1549c71d1b80106f5cade5608a561f4b",
    ),
    "vggish-pca": Published(
        "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish_pca_params-970ea276.pth",
        "sha256",
        "970ea276",
    ),
}


def find_weights(name: str) -> Path:
    """A file of weights: the path itself, or a name in PUBLISHED, from the cache or downloaded into it.

    Raises:
        InputError: no such file or name.
        HdcidError: it is not in the cache and cannot be downloaded; says what to fetch and where to put it.
    """
    if name not in PUBLISHED:
        if not Path(name).is_file():
            raise InputError(f"There is no file of weights {name}; published ones are {', '.join(PUBLISHED)}.")
        return Path(name)
    published = PUBLISHED[name]
    path = home_dir() / "weights" / published.file_name
    if not path.exists():
        try:
            download(published, path)
        except (URLError, OSError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise HdcidError(
                f"The weights {name!r} are not here and cannot be downloaded ({reason}): "
                f"fetch {published.url} and put it at {path}, name the file with --weights, or take a backbone "
                "without weights (hog, logmel)."
            ) from error
    return path


def download(published: Published, path: Path) -> None:
    """Fetch a file to `path`, going on with `path.part` if there is one.

    Raises URLError or OSError if that fails, HdcidError if what came has another digest.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with open(part, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # of several processes that want it, one fetches it
        if path.exists():
            part.unlink(missing_ok=True)
            return
        _fetch(published.url, file)
        file.flush()
        os.fsync(file.fileno())
        with open(part, "rb") as written:
            digest = hashlib.file_digest(written, published.algorithm).hexdigest()
        if not digest.startswith(published.digest):
            part.unlink()
            raise HdcidError(
                f"What came from {published.url} is damaged ({published.algorithm} {digest}, not "
                f"{published.digest}): try again."
            )
        os.replace(part, path)


def _fetch(url: str, file) -> None:
    """Append to `file` what it lacks of what is at `url`."""
    have = file.tell()
    try:
        response = urlopen(Request(url, headers={"Range": f"bytes={have}-"} if have else {}), timeout=60)
    except HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is lacking
        raise
    with response:
        if have and response.status != HTTPStatus.PARTIAL_CONTENT:  # the server cannot go on in the middle
            file.truncate(0)
            have = 0
        lacking = int(response.headers.get("Content-Length") or 0)
        with progress(total=have + lacking or None, initial=have, description=url.rsplit("/", 1)[1], unit="B") as bar:
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
        if file.tell() < have + lacking:
            raise OSError(f"the connection ended after {file.tell()} of {have + lacking} bytes")


def read_state(path: Path) -> dict:
    """Tensors by name from a file that torch saved; nothing else in it is executed."""
    state = read_saved(path, "a file of weights that torch saved", STAND_INS)
    for name, value in state.items():
        if not isinstance(name, str):
            raise InputError(f"{path} holds no weights by name.")
        if isinstance(value, StoredArray):  # some published files hold numpy's arrays
            try:
                state[name] = torch.from_numpy(value.array.copy())
            except NoArray as error:
                raise InputError(f"{path}: {name} is not an array of numbers: {error}.") from error
    return state


def fill(module, state: dict, path: Path) -> None:
    """Give a module (on the meta device) exactly its parameters from `state`; a missing or misshapen one is an
    InputError.
    """
    try:
        module.load_state_dict({name: state[name] for name in module.state_dict()}, assign=True)
    except KeyError as error:
        raise InputError(
            f"{path} has no weights {error.args[0]!r}: it is not a file for {type(module).__name__}."
        ) from None
    except RuntimeError as error:
        raise InputError(
            f"{path} does not fit {type(module).__name__}: {str(error).splitlines()[-1].strip()}"
        ) from error
