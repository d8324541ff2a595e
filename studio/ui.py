"""Puts the pages together. A page is a class with `title`, `path` and `build(demo)`; what it shows it loads itself.

demo = build_ui(studio) # then demo.launch(**launch_options(studio)), as app.py does
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from studio import api, auth, error_page, offers, run_files
from studio.account_page import AccountPage
from studio.again_page import AgainPage
from studio.blocks import StudioBlocks, unserved
from studio.compare_page import ComparePage
from studio.context import Studio
from studio.data_page import DataPage
from studio.frame import Page
from studio.home_page import HomePage
from studio.label_page.page import LabelPage
from studio.models_page import ModelsPage
from studio.people_page import PeoplePage
from studio.plain import page as plain
from studio.project_page import ProjectPage
from studio.proxy import ProxyMiddleware, trust_nobody
from studio.quality_page import QualityPage
from studio.runs_compare import RunsComparePage
from studio.runs_page import RunsPage
from studio.security import SecurityMiddleware
from studio.sign_in import SignIn
from studio.theme.calm import calm_pages
from studio.theme.theme import CSS, studio_theme
from studio.train_page import TrainPage

CONCURRENT = 16  # handlers of one kind at a time: a page load must not wait for another person's
HEAD = '<meta name="color-scheme" content="light dark"><meta name="viewport" content="width=device-width, initial-scale=1">'


def build_ui(studio: Studio) -> gr.Blocks:
    """All pages of the app, nothing started."""
    first = HomePage(studio)
    others: list[Page] = [
        DataPage(studio),
        ModelsPage(studio),
        LabelPage(studio),
        QualityPage(studio),
        ProjectPage(studio),
        TrainPage(studio),
        RunsPage(studio),
        RunsComparePage(studio),
        AgainPage(studio),
        ComparePage(studio),
    ]
    with unserved():
        with StudioBlocks(title="Alignment Studio", analytics_enabled=False, delete_cache=(3600, 3600)) as demo:
            first.build(demo)
        for page in others:
            with demo.route(page.title, page.path):
                page.build(demo)
    demo.queue(default_concurrency_limit=CONCURRENT, api_open=False)
    return demo


def people_routes(studio: Studio) -> list[BaseRoute]:
    """Pages for signing in, one's account and the people; none where nobody signs in."""
    if studio.sessions is None:
        return []
    sign_in = SignIn(studio, studio.sessions)
    account = AccountPage(studio, studio.sessions, sign_in.attempts)
    return [*sign_in.routes(), *account.routes(), *PeoplePage(studio, studio.sessions).routes(), plain.ROUTE]


def launch_options(studio: Studio) -> dict[str, Any]:
    """For `launch()`: our routes and middleware go in before the start; nothing of the workspace is ever a file to serve."""
    settings = studio.settings
    trust_nobody()
    calm_pages()
    return {
        "server_name": settings.host,
        "server_port": settings.port,
        "prevent_thread_lock": True,
        "ssr_mode": False,
        "run_history": False,
        "share": False,
        "quiet": True,
        "show_error": False,  # Gradio's own words; handlers say theirs through `guarded`
        "enable_monitoring": False,
        "footer_links": [],
        "allowed_paths": [],
        "blocked_paths": [str(settings.home)],
        "max_file_size": settings.max_upload_bytes,
        "theme": studio_theme(),
        "head": f"{HEAD}<style>{CSS.read_text(encoding='utf-8')}</style>",
        "app_kwargs": {
            "routes": [*api.routes(studio), *offers.routes(studio), *run_files.routes(studio), *people_routes(studio)],
            "middleware": [
                Middleware(ProxyMiddleware, proxies=settings.proxies),
                Middleware(SecurityMiddleware, settings=settings, trusted_hosts=settings.public_names),
                *auth.middleware(studio),
            ],
            "exception_handlers": {
                HTTPException: error_page.refused,
                RequestValidationError: error_page.refused,
                Exception: error_page.failed,
            },
        },
    }
