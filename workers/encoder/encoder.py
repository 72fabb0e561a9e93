"""The sentence encoder: text to a vector of length 1, so that a dot product is the cosine. ONNX on the CPU through fastembed.

With a directory nothing is ever downloaded. A model that cannot be had or is no encoder raises `EncoderMissing` at start, with what to
set. `encode` is CPU work (about 8 ms a short text and thread): call it in a thread. It may be called from several at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as onnx

from workers.encoder import files
from workers.encoder.errors import EncodeFailed, EncoderMissing

Vector = NDArray[np.float32]

BATCH = 8
"""Fastest on a CPU by measurement; larger batches only add padding."""
READ_CHARS = 8_192
"""Far beyond the 256 or 512 tokens that such models read; without the cut the tokenizer would chew on all of a 900 kB text."""

_FAILURES = (onnx.Fail, onnx.RuntimeException, onnx.InvalidArgument, onnx.EPFail, MemoryError)


@dataclass(frozen=True, slots=True)
class Encoder:
    name: str
    """Identity: model and digest of its files. Vectors of two names must never be compared."""
    dim: int
    _model: Any = field(repr=False)

    def encode(self, texts: Sequence[str]) -> list[Vector]:
        """One vector of `dim` float32, of length 1, for each text, in the order given; `EncodeFailed` if the model
        fails. Beyond its token limit the model reads nothing."""
        # By length, because a batch is padded to its longest text.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        try:
            vectors = list(self._model.embed([texts[i][:READ_CHARS] for i in order], batch_size=BATCH))
        except _FAILURES as e:
            raise EncodeFailed(f"{self.name}: {type(e).__name__}") from None
        placed = dict(zip(order, vectors, strict=True))
        return [_unit(placed[i]) for i in range(len(texts))]


def open_encoder(path: Path | None, model: str, threads: int) -> Encoder:
    """The encoder in the directory `path` (model.onnx, tokenizer.json, tokenizer_config.json; mean pooling), or else fastembed's `model`,
    which is downloaded once. `threads`: CPU threads of one `encode`."""
    given = f"SCRIMP_ENCODER__MODEL={model}" if path is None else f"SCRIMP_ENCODER__PATH={path}"
    try:
        embedder, folder, model_file = _local(path, threads) if path is not None else _from_hub(model, threads)
        digest = _digest([folder / model_file, *(folder / name for name in files.TOKENIZER_FILES)])
        probe = next(iter(embedder.embed(["dimension"])))
    except EncoderMissing:
        raise
    except Exception as e:
        # Files that were cut off, are of another kind or may not be read: the libraries have no error in common for that.
        why = next(iter(str(e).splitlines()), "")
        raise EncoderMissing(f"{given}: cannot be loaded as an encoder: {type(e).__name__}: {why}") from e
    return Encoder(name=f"{model if path is None else 'local'}@{digest[:16]}", dim=len(probe), _model=embedder)


def _local(path: Path, threads: int) -> tuple[Any, Path, str]:
    files.check(path)
    name = f"local/{_digest([path / files.MODEL_FILE])[:16]}"
    if not any(known["model"] == name for known in TextEmbedding.list_supported_models()):
        # fastembed only repeats `dim` and `sources`: the vectors have what the model gives, and a local directory has no source.
        TextEmbedding.add_custom_model(
            model=name, pooling=PoolingType.MEAN, normalization=True, sources=ModelSource(hf=name), dim=0, model_file=files.MODEL_FILE
        )
    return TextEmbedding(name, specific_model_path=str(path), threads=threads), path, files.MODEL_FILE


def _from_hub(model: str, threads: int) -> tuple[Any, Path, str]:
    try:
        embedder = TextEmbedding(model, threads=threads)
    except (ValueError, OSError) as e:
        raise EncoderMissing(f"SCRIMP_ENCODER__MODEL={model}: {e}; to use a local directory, set SCRIMP_ENCODER__PATH") from e
    return embedder, Path(embedder.model._model_dir), embedder.model.model_description.model_file


def _digest(paths: list[Path]) -> str:
    whole = hashlib.sha256()
    for path in paths:
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def _unit(vector: Any) -> Vector:
    single = np.asarray(vector, dtype=np.float32)
    length = float(np.linalg.norm(single))
    # Not every model of the hub normalises. A vector of zeros has no direction and stays what it is: similar to nothing.
    return single / np.float32(length) if length > 0 else single
