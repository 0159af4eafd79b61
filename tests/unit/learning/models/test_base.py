"""Tests of base models by name: refusals, installation and digests."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError

from common.errors import ModelError, StoreError, WireError
from common.model_cache import find_installed, link_installed
from common.protocol import codec, manifest
from learning.models import base, hub
from learning.models.loader import load
from tests.support.tiny_model import write_sharded_model


def silent(message: str, fraction: float) -> None:
    pass


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> base.BaseModel:
    return base.resolve("offline:gpt2-micro", None, tmp_path_factory.mktemp("cache"), silent)


PIECE = 1000


def make_fetch(path: Path) -> base.FetchFile:
    """Return a function that serves files by their digest in pieces, as a coordinator does."""
    files = {f.sha256: f.name for f in manifest.parse_manifest(manifest.make_manifest(path))}

    def fetch(file: manifest.ModelFile, start: int) -> Iterator[bytes]:
        content = (path / files[file.sha256]).read_bytes()
        for offset in range(start, len(content), PIECE):
            yield content[offset : offset + PIECE]

    return fetch


def write_config(folder: Path, **config: object) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_manifest_is_sorted_lines_of_digest_size_and_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"not a part of the model")
    assert manifest.make_manifest(tmp_path).decode() == (
        "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a 2 config.json\n"
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 model.safetensors\n"
    )


def test_a_manifest_reads_back_as_it_was_written(micro: base.BaseModel) -> None:
    files = manifest.parse_manifest(manifest.make_manifest(micro.path))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {f.name for f in files}
    assert all((micro.path / f.name).stat().st_size == f.nbytes for f in files)


ZERO = "0" * 64


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\n",
        f"{ZERO} 2 config.json".encode(),
        f"{ZERO} 2 ../config.json\n".encode(),
        f"{ZERO} 2 /etc/config.json\n".encode(),
        f"{ZERO} 2 pytorch_model.bin\n".encode(),
        f"{ZERO} 2 modeling.py\n".encode(),
        f"{ZERO} -2 config.json\n".encode(),
        f"{ZERO} 02 config.json\n".encode(),
        f"{ZERO} 2 config.json\n\n".encode(),
        f"{ZERO} 2 config.json\r\n".encode(),
        f"{ZERO} 2 tokenizer.json\n{ZERO} 2 config.json\n".encode(),
        f"{ZERO} 2 config.json\n{ZERO} 2 config.json\n".encode(),
        f"{'Z' * 64} 2 config.json\n".encode(),
        b"a" * (manifest.MAX_BYTES + 1),
    ],
)
def test_a_hostile_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        manifest.parse_manifest(data)


def test_an_installed_model_has_the_same_digest_and_loads(
    micro: base.BaseModel, tmp_path: Path
) -> None:
    assert find_installed(micro.digest, tmp_path) is None
    path = base.install(
        manifest.make_manifest(micro.path), micro.digest, make_fetch(micro.path), tmp_path
    )
    assert find_installed(micro.digest, tmp_path) == path
    assert codec.digest(manifest.make_manifest(path)) == micro.digest
    load(path, torch.device("cpu"))


def test_a_second_install_fetches_nothing(micro: base.BaseModel, tmp_path: Path) -> None:
    data = manifest.make_manifest(micro.path)
    first = base.install(data, micro.digest, make_fetch(micro.path), tmp_path)

    def refuse(file: manifest.ModelFile, start: int) -> Iterator[bytes]:
        raise AssertionError("fetched again")

    assert base.install(data, micro.digest, refuse, tmp_path) == first


def test_a_changed_byte_is_refused_and_leaves_nothing(
    micro: base.BaseModel, tmp_path: Path
) -> None:
    right = make_fetch(micro.path)

    def corrupt(file: manifest.ModelFile, start: int) -> Iterator[bytes]:
        for piece in right(file, start):
            yield piece[:-1] + bytes([piece[-1] ^ 1])

    with pytest.raises(WireError, match="other bytes"):
        base.install(manifest.make_manifest(micro.path), micro.digest, corrupt, tmp_path)
    assert find_installed(micro.digest, tmp_path) is None
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("extra", [b"x", b""])
def test_a_file_of_another_size_is_refused(
    micro: base.BaseModel, tmp_path: Path, extra: bytes
) -> None:
    right = make_fetch(micro.path)

    def other_size(file: manifest.ModelFile, start: int) -> Iterator[bytes]:
        pieces = list(right(file, start))
        yield from [*pieces, extra] if extra else pieces[:-1]

    with pytest.raises(WireError, match="other bytes"):
        base.install(manifest.make_manifest(micro.path), micro.digest, other_size, tmp_path)


def test_an_interrupted_fetch_continues_where_it_ended(
    micro: base.BaseModel, tmp_path: Path
) -> None:
    right = make_fetch(micro.path)
    listing = manifest.make_manifest(micro.path)
    fetched: list[int] = []
    starts: list[int] = []

    def interrupted(file: manifest.ModelFile, start: int) -> Iterator[bytes]:
        starts.append(start)
        for piece in right(file, start):
            if len(fetched) == 20:
                raise StoreError("the store does not answer")
            fetched.append(len(piece))
            yield piece

    with pytest.raises(StoreError):
        base.install(listing, micro.digest, interrupted, tmp_path)
    assert find_installed(micro.digest, tmp_path) is None
    del fetched[:19], starts[:]
    fetched += [0] * 100  # the second attempt is not interrupted
    before = sum(fetched)
    base.install(listing, micro.digest, interrupted, tmp_path)
    total = manifest.total_bytes(manifest.parse_manifest(listing))
    assert starts[0] > 0
    assert sum(fetched) - before <= total - 19 * PIECE
    assert [path.name for path in (tmp_path / "models").iterdir()] == [micro.digest]


def test_a_full_disk_is_reported_before_anything_is_fetched(
    micro: base.BaseModel, tmp_path: Path
) -> None:
    huge = f"{ZERO} {10**14} model.safetensors\n".encode()
    with pytest.raises(ModelError, match=r"needs 93132\.3 GiB.*FCCL_CACHE"):
        base.install(huge, codec.digest(huge), make_fetch(micro.path), tmp_path)


def test_a_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    size, piece = 64 << 20, bytes(1 << 20)
    sha = hashlib.sha256()
    for _ in range(size // len(piece)):
        sha.update(piece)
    listing = f"{sha.hexdigest()} {size} model.safetensors\n".encode()

    def fetch(file: manifest.ModelFile, start: int) -> Iterator[bytes]:
        yield from itertools.repeat(piece, (size - start) // len(piece))

    tracemalloc.start()
    base.install(listing, codec.digest(listing), fetch, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_sharded_model_installs_and_loads(tmp_path: Path) -> None:
    source = write_sharded_model(tmp_path / "source")
    found = base.resolve(str(source), None, tmp_path, silent)
    listing = manifest.make_manifest(source)
    names = {file.name for file in manifest.parse_manifest(listing)}
    assert {"model.safetensors.index.json", "model-00001-of-00004.safetensors"} <= names
    path = base.install(listing, found.digest, make_fetch(source), tmp_path / "cache")
    loaded, original = (load(each, torch.device("cpu")).model for each in (path, source))
    for name, tensor in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_a_sharded_model_that_lacks_a_shard_is_refused(tmp_path: Path) -> None:
    source = write_sharded_model(tmp_path / "source")
    (source / "model-00002-of-00004.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks model-00002-of-00004.*1 of 4"):
        base.resolve(str(source), None, tmp_path, silent)


def test_a_manifest_has_room_for_four_hundred_shards(tmp_path: Path) -> None:
    names = [f"model-{number:05d}-of-00400.safetensors" for number in range(1, 401)]
    lines = sorted(f"{ZERO} {5 * 10**9} {name}\n" for name in names)
    assert len(manifest.parse_manifest("".join(lines).encode())) == 400


def test_a_linked_model_counts_until_its_files_change(
    micro: base.BaseModel, tmp_path: Path
) -> None:
    source = shutil.copytree(micro.path, tmp_path / "source")
    path = link_installed(source, micro.digest, tmp_path / "cache")
    assert path.is_symlink() and path.resolve() == source.resolve()
    assert find_installed(micro.digest, tmp_path / "cache") == path
    (source / "notes.txt").write_text("not a part of the model")
    assert find_installed(micro.digest, tmp_path / "cache") == path
    (source / "config.json").write_text("{}")
    assert find_installed(micro.digest, tmp_path / "cache") is None
    listing = manifest.make_manifest(micro.path)
    installed = base.install(listing, micro.digest, make_fetch(micro.path), tmp_path / "cache")
    assert not installed.is_symlink()
    assert (source / "config.json").read_text() == "{}"


def test_a_link_whose_directory_was_removed_is_replaced(
    micro: base.BaseModel, tmp_path: Path
) -> None:
    source = shutil.copytree(micro.path, tmp_path / "source")
    link_installed(source, micro.digest, tmp_path / "cache")
    shutil.rmtree(source)
    assert find_installed(micro.digest, tmp_path / "cache") is None
    path = link_installed(micro.path, micro.digest, tmp_path / "cache")
    assert path.resolve() == micro.path.resolve()


def test_a_manifest_of_another_model_is_refused(micro: base.BaseModel, tmp_path: Path) -> None:
    with pytest.raises(WireError, match="does not match"):
        base.install(manifest.make_manifest(micro.path), ZERO, make_fetch(micro.path), tmp_path)


def test_a_digest_is_never_a_path(tmp_path: Path) -> None:
    with pytest.raises(WireError):
        find_installed("../../etc", tmp_path)


def test_an_offline_model_is_found_by_its_digest_in_its_cache(
    micro: base.BaseModel,
) -> None:
    found = find_installed(micro.digest, micro.path.parent.parent)
    assert found is not None and found.resolve() == micro.path.resolve()


def test_a_local_directory_resolves_to_the_same_digest(
    micro: base.BaseModel, tmp_path: Path
) -> None:
    local = base.resolve(str(micro.path), None, tmp_path, silent)
    assert (local.kind, local.revision, local.digest) == ("local", None, micro.digest)


def test_a_loaded_model_is_float32_in_evaluation_mode_and_can_pad(micro: base.BaseModel) -> None:
    loaded = load(micro.path, torch.device("cpu"))
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert not loaded.model.training
    assert loaded.tokenizer.pad_token_id is not None


def test_a_tokenizer_without_a_padding_token_pads_with_its_end_token(
    micro: base.BaseModel, tmp_path: Path
) -> None:
    path = base.install(
        manifest.make_manifest(micro.path), micro.digest, make_fetch(micro.path), tmp_path
    )
    config = json.loads((path / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load(path, torch.device("cpu")).tokenizer
    assert tokenizer.pad_token == tokenizer.eos_token


def test_a_directory_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json.*save_pretrained"):
        base.resolve(str(tmp_path), None, tmp_path, silent)


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "m", architectures=["GPT2LMHeadModel"])
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="no safetensors weights"):
        base.resolve(str(folder), None, tmp_path, silent)


def test_an_encoder_is_refused_by_its_architecture(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "m", architectures=["BertForMaskedLM"], model_type="bert")
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"not a causal language model.*BertForMaskedLM"):
        base.resolve(str(folder), None, tmp_path, silent, "causal")
    assert base.resolve(str(folder), None, tmp_path, silent, "encoder").path == folder


def test_a_causal_model_is_refused_where_an_encoder_is_needed(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "m", architectures=["GPT2LMHeadModel"], model_type="gpt2")
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"not an encoder.*GPT2LMHeadModel") as caught:
        base.resolve(str(folder), None, tmp_path, silent, "encoder")
    assert "offline:bert-tiny" in caught.value.remedy


@pytest.mark.parametrize("config", [{}, {"architectures": "BertModel"}, {"architectures": [3]}])
def test_a_model_of_no_known_family_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = write_config(tmp_path / "m", **config)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="is not a"):
        base.resolve(str(folder), None, tmp_path, silent)


def test_broken_weights_are_reported_in_one_line(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "m", architectures=["GPT2LMHeadModel"], model_type="gpt2")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load(folder, torch.device("cpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no/such/directory", "../up", "two  words", ""])
def test_a_name_that_is_neither_directory_nor_hub_id_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a directory nor a hub id"):
        base.resolve(name, None, tmp_path, silent)


def test_an_unknown_offline_model_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="offline:gpt2-tiny"):
        base.resolve("offline:gpt9", None, tmp_path, silent)


def test_an_unreachable_hub_suggests_an_offline_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "model_info", unreachable)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ModelError, match=r"cannot be reached.*offline:gpt2-tiny"):
        base.resolve("gpt2", None, tmp_path, silent)


def raising(error: Exception) -> Callable[..., None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    return fail


def test_a_hub_that_does_not_answer_is_unavailable_unless_the_model_is_cached(
    micro: base.BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "model_info", raising(ConnectionError("no route")))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", raising(FileNotFoundError()))
    assert not hub.is_available("gpt2", None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: str(micro.path))
    assert hub.is_available("gpt2", None)


def test_a_hub_without_the_model_counts_as_available(monkeypatch: pytest.MonkeyPatch) -> None:
    response = httpx.Response(404, request=httpx.Request("GET", "https://hub"))
    missing = RepositoryNotFoundError("no such model", response=response)
    monkeypatch.setattr(huggingface_hub, "model_info", raising(missing))
    assert hub.is_available("gpt9", None)


def test_a_hub_model_is_pinned_to_the_commit_and_downloads_only_model_files(
    micro: base.BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sibling:
        def __init__(self, name: str) -> None:
            self.rfilename = name

    class Info:
        sha = "a" * 40
        siblings = tuple(
            Sibling(name)
            for name in (
                "config.json",
                "model.safetensors",
                "model-00001-of-00002.safetensors",
                "model.safetensors.index.json",
                "consolidated.safetensors",
                "pytorch_model.bin",
                "x/model.safetensors",
            )
        )

    asked: dict[str, object] = {}

    def snapshot(name: str, **options: object) -> str:
        asked.update(options)
        return str(micro.path)

    monkeypatch.setattr(huggingface_hub, "model_info", lambda *a, **k: Info())
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    model = base.resolve("gpt2", "main", tmp_path, silent)
    assert (model.kind, model.revision, model.digest) == ("hub", "a" * 40, micro.digest)
    assert asked["revision"] == "a" * 40
    assert asked["allow_patterns"] == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors",
        "model.safetensors.index.json",
    ]
