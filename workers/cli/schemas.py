"""`scrimp schemas export`: the JSON Schema of every event, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The events' JSON Schema.\n\nExample: scrimp schemas export", no_args_is_help=True)


@app.callback()
def _group() -> None: ...


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Where to write; it is made if it is not there.", file_okay=False)],
) -> None:
    """Write the JSON Schema of every event into a folder.

    Example: scrimp schemas export ./schemas
    """
    from schemas import export

    try:
        export.write(folder)
    except OSError as e:
        raise typer.BadParameter(f"{e.filename}: {e.strerror}", param_hint="FOLDER") from e
    print(f"{len(list(export.files()))} schemas written to {folder}")
