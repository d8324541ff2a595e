"""Alignment Studio, the web process: flags, then settings, database, studio, pages, launch.

    python app.py [--host 127.0.0.1] [--port 7860] [--home workspace] [--visitor] [--accounts] [--public-name NAME]

Works as it is on a Hugging Face Space. It never imports torch: models and runs live in child processes, and runs go on when
this process ends. What cannot work (a busy port, a workspace that another app has open) is one sentence and exit code 2.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

from data.errors import StudioError, WorkspaceError
from data.settings import Settings, read_settings

if TYPE_CHECKING:
    from studio.context import Studio


def parse(argv: list[str] | None = None) -> Settings:
    """Flags over environment over defaults; see `data/settings.py`."""
    parser = argparse.ArgumentParser(description="Alignment Studio: prompts, answers, blind labels, training, comparison.")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 7860)")
    parser.add_argument("--home", help="folder for everything the studio stores (default ./workspace, or $STUDIO_HOME)")
    parser.add_argument("--visitor", action="store_true", help="give each browser a throw-away project with limits")
    parser.add_argument(
        "--accounts",
        action=argparse.BooleanOptionalAction,
        help="people sign in: always so on a host other than loopback, and where the workspace has accounts already",
    )
    parser.add_argument(
        "--public-name",
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which a reverse proxy on this machine serves the studio (may be given several times)",
    )
    parser.add_argument(
        "--backup",
        metavar="PLACE",
        help="copy every label to this folder (a mounted bucket) or hf://datasets/owner/name; an empty workspace is filled from it",
    )
    flags = parser.parse_args(argv)
    return read_settings(flags.host, flags.port, flags.home, flags.visitor, flags.accounts, flags.public_name, flags.backup)


def check_address(settings: Settings) -> None:
    """WorkspaceError when the address must not or cannot be listened on."""
    if settings.visitor and settings.accounts:
        raise WorkspaceError("Visitors have no accounts; start the studio with either --visitor or --accounts.")
    if not settings.is_loopback and not settings.visitor and not settings.accounts:
        raise WorkspaceError(
            f"Without accounts the studio does not open itself to a network ({settings.host}); leave out --no-accounts, "
            "or add --visitor to give everybody a throw-away project."
        )
    if not 0 < settings.port < 65536:
        raise WorkspaceError(f"{settings.port} is no port; choose one from 1024 to 65535 with --port.")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise WorkspaceError(
                f"Port {settings.port} on {settings.host} cannot be used ({error.strerror}); "
                "stop what is using it, or choose another one with --port."
            ) from error


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = parse(argv)
    try:
        check_address(settings)
        serve(settings)
    except StudioError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; then let go of the workspace. Runs that are going are left alive."""
    wait = until_ended()
    from studio.context import open_studio

    with open_studio(settings) as studio:
        from studio.gradio_import import import_gradio

        import_gradio()
        from studio.ui import build_ui, launch_options

        demo = build_ui(studio)
        demo.launch(**launch_options(studio))
        address = address_of(settings)
        print(f"Alignment Studio is on {address} (workspace {settings.home}); stop it with Ctrl-C.", flush=True)
        if studio.sessions is not None:
            print(first_link(studio, address), flush=True)
        wait()
        demo.close(verbose=False)


def until_ended() -> Callable[[], object]:
    """What waits for SIGTERM or SIGINT, also for one that comes before it is called.

    A queue: an Event's lock is already taken where a signal comes just as the wait begins, and the app would wait for itself.
    """
    ended: SimpleQueue[int] = SimpleQueue()
    for wanted in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wanted, lambda number, _frame: ended.put(number))
    return ended.get


def address_of(settings: Settings) -> str:
    """Where to find the studio; a proxy's address where there is one."""
    if settings.public_names:
        return f"https://{min(settings.public_names)}"
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def first_link(studio: Studio, address: str) -> str:
    """What to tell whoever starts a studio with accounts; while nobody can sign in as admin, the link that changes that."""
    from studio.sign_in import setup_link

    link = setup_link(studio, address)
    if not link:
        return f"People sign in at {address}/sign-in; admins invite them on the People page."
    return (
        "Nobody can sign in as admin yet. Open this link within an hour to make the first account; it works once, and each start "
        f"without an admin makes a new one:\n\n    {link}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
