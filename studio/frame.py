"""The frame of every page: header, title, and the guard that turns an error into a sentence.

A page is a class with `title`, `path` and `build()`; its handlers are bound methods (a `functools.partial` silently loses
`gr.Request`). Every handler is wrapped in `guarded`: what the domain raises for the user is shown as it is, anything else is
logged and named a fault of the app, so that no traceback reaches a browser.
"""

from __future__ import annotations

import functools
import html
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import gradio as gr

from data.errors import StudioError
from data.records import Project
from studio.context import Studio, Viewer
from studio.render import Html, esc
from studio.visitors import LINE as VISITOR_LINE

log = logging.getLogger("studio")
F = TypeVar("F", bound=Callable[..., Any])

PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # on every event: nothing here is an interface for programs
TOAST_S = 12
NOT_DONE = "That did not work"
FAULT = "Something went wrong in the app itself; what it was doing is in the app's log. Nothing stored is lost."


class Page(Protocol):
    """One page of the app: `path` is what follows the address's slash, '' for the first one."""

    title: str
    path: str

    def build(self, demo: gr.Blocks) -> None: ...


class Link(NamedTuple):
    title: str
    path: str


LINKS = (
    Link("Home", ""),
    Link("Data", "data"),
    Link("Models", "models"),
    Link("Label", "label"),
    Link("Quality", "quality"),
    Link("Train", "train"),
    Link("Runs", "runs"),
    Link("Compare", "compare"),
)
PEOPLE_LINKS = (Link("People", "people"), Link("Account", "account"))  # where people sign in
_MARK = (
    '<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2.4" stroke-linecap="round" aria-hidden="true">'
    '<path d="M20 12a8 8 0 1 1-2.6-5.9"/><path d="M20.4 3.2v4h-4"/>'
    '<circle cx="12" cy="12" r="2.2" fill="currentColor" stroke="none"/></svg>'
)


def header(links: Sequence[Link], here: str, project: str = "", root: str = "./") -> Html:
    """The head of every page. `here`: the path of the page it is on; `root`: the app's address, relative to that page."""
    shown = "".join(
        f'<a href="{root}{link.path}"{" aria-current=page" if link.path == here else ""}>{esc(link.title)}</a>' for link in links
    )
    home = f"{root}{links[0].path}" if links else root
    return Html(
        f'<header class="st-top"><a class="st-brand" href="{home}">{_MARK}Alignment Studio</a>'
        f'<nav class="st-nav" aria-label="Pages">{shown}</nav>'
        f'<span class="st-where" title="The open project">{esc(project)}</span></header>'
    )


def block(value: str = "", elem_id: str | None = None, **more: Any) -> gr.HTML:
    """A `gr.HTML` without Gradio's prose styles; what goes in comes from `studio.render`, which escapes."""
    return gr.HTML(value, elem_id=elem_id, elem_classes="st-block", apply_default_css=False, padding=False, **more)


class Top:
    """Brand, navigation and the open project's name. Plain links, so that each page loads only what is its own."""

    def __init__(self, studio: Studio, path: str) -> None:
        self._path = path
        self._more = PEOPLE_LINKS if studio.settings.accounts else ()
        gr.Navbar(visible=False)
        self.html = block(self._draw("", visitor=studio.settings.visitor), elem_id=f"top-{path or 'home'}")

    def show(self, viewer: Viewer, project: Project | None) -> Html:
        """The header for the page's load handler to return."""
        return self._draw(project.name if project else "", viewer.is_visitor)

    def _draw(self, project: str, visitor: bool) -> Html:
        line = f'<p class="st-visitor">{esc(VISITOR_LINE)}</p>' if visitor else ""
        return Html(header((*LINKS, *self._more), self._path, project) + line)


class Choice(gr.Dropdown):
    """A dropdown whose choices are loaded with the page.

    Gradio forgets loaded choices when the server restarts and would then refuse every value of a page that is still open.
    So any text is let through here, and handlers look it up among what the viewer may see.
    """

    is_template = True  # drawn as the Dropdown that it is

    def preprocess(self, payload: Any) -> Any:
        if self.multiselect:
            return [str(one) for one in payload] if isinstance(payload, list) else []
        return payload if isinstance(payload, str) else None


def choice(**more: Any) -> Choice:
    """An empty `Choice`; the page's load handler fills it."""
    return Choice([], filterable=False, **more)


def heading(title: str, says: str) -> gr.HTML:
    """The page's one heading and what the page is for."""
    return block(f'<div class="st-head"><h1>{esc(title)}</h1><p>{esc(says)}</p></div>')


def in_words(error: Exception) -> str:
    """The error as the browser shows it; a fault of the app itself goes to the log."""
    if isinstance(error, StudioError):
        return str(error)
    log.exception("a handler failed", exc_info=error)
    return FAULT


def as_text(sentence: str) -> str:
    """For `gr.Warning` and `gr.Info`, which take a sentence for HTML: it may hold the name of a file or what a server said."""
    return html.escape(sentence, quote=False)


def guarded(handler: F) -> F:
    """Show a StudioError's sentence and leave the page as it is; works on plain handlers and on generators.

    Not by raising: Gradio would then cover every output with the word "Error" until somebody clicks it away.
    """
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def stream(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from handler(*args, **kwargs)
            except Exception as error:
                gr.Warning(as_text(in_words(error)), duration=TOAST_S, title=NOT_DONE)
                yield gr.skip()

        return stream  # type: ignore[return-value]

    @functools.wraps(handler)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            gr.Warning(as_text(in_words(error)), duration=TOAST_S, title=NOT_DONE)
            return gr.skip()

    return call  # type: ignore[return-value]


def goes_to(event: Any, where: gr.Textbox) -> None:
    """After `event` has put an address into the hidden box `where`, open it; the box is emptied for the next time."""
    event.success(None, where, where, js="(to) => { if (to) window.location.assign(to); return ''; }", **PRIVATE)


def query(request: gr.Request, name: str) -> str:
    """A parameter of the page's address, '' when it is not there."""
    return str(dict(request.query_params).get(name, ""))
