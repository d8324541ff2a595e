"""Alignment Studio, the web process: flags, then settings, database, studio, pages, launch.

    python app.py [--host 127.0.0.1] [--port 7860] [--home workspace] [--visitor]

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
import threading
from types import FrameType

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")

from data.errors import StudioError, WorkspaceError
from data.settings import Settings, read_settings


def parse(argv: list[str] | None = None) -> Settings:
    """Flags over environment over defaults; see `data/settings.py`."""
    parser = argparse.ArgumentParser(description="Alignment Studio: prompts, answers, blind labels, training, comparison.")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default 7860)")
    parser.add_argument("--home", help="folder for everything the studio stores (default ./workspace, or $STUDIO_HOME)")
    parser.add_argument("--visitor", action="store_true", help="give each browser a throw-away project with limits")
    flags = parser.parse_args(argv)
    return read_settings(flags.host, flags.port, flags.home, flags.visitor)


def check_address(settings: Settings) -> None:
    """WorkspaceError when the address must not or cannot be listened on."""
    if not settings.is_loopback and not settings.visitor:
        raise WorkspaceError(
            f"The studio has no accounts yet, so it does not open itself to a network ({settings.host}); "
            "leave out --host and reach it through a tunnel, or add --visitor to give everybody a throw-away project."
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
    ended = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ended.set()

    for wanted in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wanted, end)
    from studio.context import open_studio

    with open_studio(settings) as studio:
        from studio.ui import build_ui, launch_options

        demo = build_ui(studio)
        demo.launch(**launch_options(studio))
        shown = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host
        print(
            f"Alignment Studio is on http://{shown}:{settings.port} (workspace {settings.home}); stop it with Ctrl-C.", flush=True
        )
        ended.wait()
        demo.close(verbose=False)


if __name__ == "__main__":
    sys.exit(main())
