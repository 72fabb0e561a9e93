"""`scrimp`: the command line. Commands import what they need when they run, so that `scrimp --help` is quick.

A setting or a policy that is wrong, a dependency that is missing or cannot be reached: one line on standard error, exit code 2 for what the
user set, 1 for the rest. Anything else is a bug and shows its traceback.
"""

from __future__ import annotations

import sys

import typer

from workers.cli import ask, dead, demo, doctor, forget, ledger, report, run, schemas, submit, topics, up, watch

app = typer.Typer(
    name="scrimp",
    help="Answer LLM requests over Kafka for the least money that still gives the right answer.\n\nExample: scrimp up",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (up.up, demo.demo, ask.ask, submit.submit, watch.watch, run.run, report.report, forget.forget, doctor.doctor):
    app.command()(command)
app.add_typer(topics.app, name="topics")
app.add_typer(dead.app, name="dead")
app.add_typer(ledger.app, name="ledger")
app.add_typer(schemas.app, name="schemas")


def main() -> None:
    try:
        app()
    except SystemExit:
        raise
    except KeyboardInterrupt:
        sys.exit(130)
    except _wrong_setting() as e:
        _end(e, 2)
    except _cannot() as e:
        _end(e, 1)


def _end(error: BaseException, code: int) -> None:
    print(f"scrimp: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(code)


def _wrong_setting() -> tuple[type[Exception], ...]:
    from workers.policy import PolicyError
    from workers.settings import SettingsError

    return (SettingsError, PolicyError)


def _cannot() -> tuple[type[Exception], ...]:
    """Looked at only when something went wrong: the classes stand beside heavy imports."""
    from workers.encoder.errors import EncoderMissing
    from workers.laptop.process import LaptopError
    from workers.ledger.migrate import LedgerNotReady
    from workers.outcomes import Unavailable
    from workers.runtime.delivery import Fatal
    from workers.runtime.offsets import OutOfOrder
    from workers.runtime.producer import Unpublishable
    from workers.runtime.provision import ProvisionError
    from workers.runtime.standstill import Standstill

    return (Unavailable, Unpublishable, Fatal, OutOfOrder, Standstill, LaptopError, LedgerNotReady, ProvisionError, EncoderMissing)


if __name__ == "__main__":
    main()
