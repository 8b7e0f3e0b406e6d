"""The `headwater` command. Each group of commands is a module of infra/commands/."""

from __future__ import annotations

import errno
import os
import signal
import sys

import typer
from click.exceptions import ClickException

from infra.commands.agent import agent
from infra.commands.analytics import analytics_app
from infra.commands.ask import ask, feedback
from infra.commands.dead_letters import dead_letters_app
from infra.commands.fleet import edge_app
from infra.commands.keys import keys_app
from infra.commands.learn import learn_app
from infra.commands.local import demo, doctor, up
from infra.commands.measuring import bench, eval_app
from infra.commands.models import models_app
from infra.commands.privacy import privacy_app
from infra.commands.publish import publish
from infra.commands.quarantine import quarantine_app
from infra.commands.shell import err
from infra.commands.study import study_app
from infra.commands.topics import contracts_app, topics
from infra.commands.watch import watch
from infra.environment import unknown_settings
from schemas.errors import HeadwaterError

cli = typer.Typer(
    help="Event-driven streaming for online learning of generative models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (up, demo, publish, ask, watch, feedback, topics, doctor, bench, agent):
    cli.command()(command)
cli.add_typer(analytics_app, name="analytics")
cli.add_typer(dead_letters_app, name="dead-letters")
cli.add_typer(eval_app, name="eval")
cli.add_typer(keys_app, name="keys")
cli.add_typer(learn_app, name="learn")
cli.add_typer(models_app, name="models")
cli.add_typer(privacy_app, name="privacy")
cli.add_typer(study_app, name="study")
cli.add_typer(quarantine_app, name="quarantine")
cli.add_typer(edge_app, name="edge")
cli.add_typer(contracts_app, name="contracts")


def app() -> None:
    """Run a command; errors of ours leave as two lines and status 1, never as a traceback."""
    for unknown in unknown_settings(os.environ):
        err.print(f"warning: {unknown}", style="yellow", markup=False)
    try:
        # `typer.Exit` comes back as a number here.
        sys.exit(cli(standalone_mode=False) or 0)
    except ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except HeadwaterError as error:
        err.print(f"error: {error.message}", style="red", markup=False)
        if error.remedy:
            err.print(error.remedy, markup=False)
        sys.exit(1)
    except OSError as error:
        err.print(f"error: {_said(error)}.", style="red", markup=False)
        err.print(_REMEDIES.get(error.errno or 0, "`headwater doctor` may know."), markup=False)
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(128 + signal.SIGINT)
    except SystemExit as ended:
        # Typer and rich make a status of it before it comes here.
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        # The reader of our output has gone, as `head` does; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def _said(error: OSError) -> str:
    """What this machine refused, without Python's way of writing it."""
    what = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {what}" if error.filename is not None else what


_REMEDIES = {
    errno.ENOSPC: "The disk is full: free some space, or move HEADWATER_DATA_DIR.",
    errno.EDQUOT: "Your quota is used up: free some space, or move HEADWATER_DATA_DIR.",
    errno.EFBIG: "This user may not write files of that size: see `ulimit -f`.",
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "Name a place that you may write to; the river's are HEADWATER_DATA_DIR and _CACHE_DIR.",
    ),
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR),
        "Name one that is there; the river's own are HEADWATER_DATA_DIR and _CACHE_DIR.",
    ),
    errno.EMFILE: "Too many files are open: see `ulimit -n`.",
}


if __name__ == "__main__":
    app()
