"""Models by name: from folders, from the cache, from a hub; what is refused, in one sentence, and never run."""

import io
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import constants
from transformers import BertConfig, BertModel

from hdcid_cli.backbones import Options, load_backbone
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.hub import find_model, load_pretrained

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TINY = {"vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    BertModel(BertConfig(**TINY)).save_pretrained(folder)
    return folder


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download needs: `org/open` with the branch main and the tag v1, `org/gated`."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self):
        path = self.path.split("?")[0]
        self.asked.append(path)
        if "gated" in path:
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif "org/open" not in path and path != "/":
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif path == "/":
            self.answer(200, b"{}")
        elif not any(revision in path for revision in ("main", "v1", COMMIT)) and path != "/api/models/org/open":
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif "/tree/" in path:
            listed = [{"type": "file", "path": n, "size": len(c), "oid": n} for n, c in self.files.items()]
            self.answer(200, json.dumps(listed).encode())
        elif path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in self.files]
            self.answer(200, json.dumps({"id": "org/open", "sha": COMMIT, "siblings": siblings}).encode())
        else:
            name = path.rsplit("/", 1)[1]
            self.answer(200, self.files[name], {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def answer(self, status: int, content: bytes, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(saved, tmp_path, monkeypatch):
    """A hub on this machine that serves the saved model, code beside it, and an empty cache."""
    Hub.files = {path.name: path.read_bytes() for path in saved.iterdir()}
    Hub.files["modeling_own.py"] = b"raise SystemExit('code was run')"
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    for module in list(sys.modules.values()):  # they have copied it
        if getattr(module, "__name__", "").startswith("huggingface_hub") and hasattr(module, "ENDPOINT"):
            monkeypatch.setattr(module, "ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    yield server
    server.shutdown()


def fetch(name, **options):
    return find_model(name, "text encoder", "use another", **options)


def test_a_name_is_fetched_once_with_its_commit_and_without_its_code(hub, monkeypatch):
    found = fetch("org/open")
    assert (found.name, found.revision) == ("org/open", COMMIT)
    assert sorted(path.name for path in found.folder.iterdir()) == ["config.json", "model.safetensors"]
    Hub.asked.clear()
    assert fetch("org/open") == found and Hub.asked == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch(f"org/open@{COMMIT}") == found
    with pytest.raises(InputError, match="not in the cache, and HF_HUB_OFFLINE is set"):
        fetch("org/open@v1")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("org/gated", r"conditions to be accepted: do so at https://huggingface.co/org/gated"),
        ("org/none", "the hub has no such model, or it is private"),
        ("org/open@v9", "it has no revision 'v9'"),
        ("no name at all", "neither a folder here nor a name on the hub"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_sentence(hub, name, said):
    with pytest.raises(InputError, match=said) as caught:
        fetch(name)
    assert str(caught.value).startswith(f"The text encoder {name} cannot be loaded (")
    assert "\n" not in str(caught.value)


def test_a_tag_is_resolved_to_its_commit(hub):
    assert fetch("org/open@v1").revision == COMMIT


def load(name, **options):
    def from_folder(folder, **where):
        from transformers import AutoModel

        return AutoModel.from_pretrained(folder, use_safetensors=not options.get("pickles"), **where)

    return load_pretrained(name, from_folder, "text encoder", "use another", **options)


def test_pickled_weights_are_read_only_where_they_are_allowed(saved, tmp_path):
    model = load(str(saved))
    (tmp_path / "config.json").write_bytes((saved / "config.json").read_bytes())
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="it has no weights in safetensors"):
        load(str(tmp_path))
    again = load(str(tmp_path), pickles=True).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights in safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "there is no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{}"), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text('{"a": {"n_layer": 1000000}}'), "for 1,000,000 layers"),
        (lambda folder: (folder / "config.json").write_text('{"depths": [2, 99999]}'), "for 99,999 layers"),
        (lambda folder: cut(folder / "model.safetensors", 1000), "cannot be loaded"),
        (lambda folder: cut(folder / "model.safetensors", 10), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"words, not numbers"), "cannot be loaded"),
    ],
)
def test_a_damaged_model_is_one_sentence(saved, tmp_path, damage, said):
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damage(tmp_path)
    with pytest.raises(InputError, match=said) as caught:
        load(str(tmp_path))
    assert "\n" not in str(caught.value)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def test_a_part_of_the_weights_that_is_missing_is_noticed(tmp_path):
    BertModel(BertConfig(**TINY)).save_pretrained(tmp_path, max_shard_size="1KB")
    assert fetch(str(tmp_path)).revision == ""
    next(tmp_path.glob("model-00002-*")).unlink()
    with pytest.raises(InputError, match="its weights are incomplete"):
        fetch(str(tmp_path))


@pytest.mark.parametrize(
    "index",
    [
        "[]",
        "[" * 9999,
        '{"weight_map": []}',
        '{"weight_map": {"a": "../x.safetensors"}}',
        '{"weight_map": {"a": "x.bin"}}',
    ],
)
def test_an_index_names_weights_beside_it_or_is_refused(tmp_path, index):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "x.bin").touch()
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(InputError, match=r"The text encoder .* cannot be loaded"):
        find_model(str(tmp_path), "text encoder", "")


def test_a_folders_own_code_is_neither_run_nor_asked_about(saved, tmp_path, monkeypatch, capsys):
    """transformers would ask on standard output, and take a `y` on standard input for an answer."""
    config = json.loads((saved / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\ny\n"))
    for attempt in (lambda: load(str(tmp_path)), lambda: load_backbone("text", "bert", Options(model=str(tmp_path)))):
        with pytest.raises(InputError, match="it would have to run code of its own, which is never done"):
            attempt()
    assert capsys.readouterr().out == "" and sys.stdin.read() == "y\ny\ny\n"
    assert not (tmp_path / "ran").exists()
