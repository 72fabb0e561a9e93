"""What a directory with an encoder holds. Looked at before anything is loaded, or waited for: a directory that is wrong stays so.
`EncoderMissing` names the setting and what is not there."""

from __future__ import annotations

from pathlib import Path

from workers.encoder.errors import EncoderMissing

MODEL_FILE = "model.onnx"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def check(path: Path) -> None:
    if missing := [name for name in (MODEL_FILE, *TOKENIZER_FILES) if not (path / name).is_file()]:
        raise EncoderMissing(
            f"SCRIMP_ENCODER__PATH={path}: no {', '.join(missing)}; it must be a directory with an ONNX model and its tokenizer"
        )
