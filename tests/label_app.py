"""The Label page alone, as a process that a test can kill: real database, real routes, real middleware, no model and no runs.

    python tests/label_app.py HOME PORT [--visitor]

The workspace must hold a project already (`tests/labelling.py` seeds one).
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gradio as gr
from starlette.middleware import Middleware

from data.database import Database
from data.settings import Settings
from labeling.assignment import Assignment
from studio import api
from studio.blocks import StudioBlocks, unserved
from studio.context import Studio
from studio.endpoint_keys import EndpointKeys
from studio.label_page.page import LabelPage
from studio.security import SecurityMiddleware
from studio.theme.calm import calm_pages
from studio.theme.theme import CSS, studio_theme


def studio_without_runs(settings: Settings, db: Database) -> Studio:
    """A Studio for pages and routes that start nothing."""
    nothing = cast(Any, None)
    return Studio(settings, db, nothing, nothing, Assignment(db), EndpointKeys())


def launch(studio: Studio) -> gr.Blocks:
    """Serve the Label page from a thread of this process."""
    settings = studio.settings
    page = LabelPage(studio)
    with unserved():
        with StudioBlocks(title="Label", analytics_enabled=False) as demo:
            gr.Markdown("Home")
        with demo.route(page.title, page.path):
            page.build(demo)
    calm_pages()
    demo.launch(
        server_name="127.0.0.1",
        server_port=settings.port,
        prevent_thread_lock=True,
        ssr_mode=False,
        run_history=False,
        quiet=True,
        footer_links=[],
        blocked_paths=[str(settings.home)],
        theme=studio_theme(),
        head=f"<style>{CSS.read_text(encoding='utf-8')}</style>",
        app_kwargs={"routes": api.routes(studio), "middleware": [Middleware(SecurityMiddleware, settings=settings)]},
    )
    return demo


def main(home: str, port: str, *flags: str) -> None:
    settings = Settings(home=Path(home), port=int(port), visitor="--visitor" in flags)
    db = Database(settings)
    demo = launch(studio_without_runs(settings, db))
    signal.signal(signal.SIGTERM, lambda *_: (db.close(), sys.exit(0)))
    demo.block_thread()


if __name__ == "__main__":
    main(*sys.argv[1:])
