"""The files behind the charts: GET /charts/NAME.svg and NAME.csv (`all.csv` = every metric) with ?runs=ID,ID.

For a chart in a paper, a spreadsheet or a script. Only runs of the viewer's open project; an annotator's role does not reach here.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from data.errors import BadInput, NotAllowed, NotFound, StudioError
from studio.context import Studio, Viewer
from studio.run_charts import MOST_RUNS, Points, as_csv, as_svg, chart_named
from studio.run_differences import own_names

ADDRESS = "/charts"


def routes(studio: Studio) -> list[BaseRoute]:
    """To be handed to `launch(app_kwargs={"routes": ...})`."""
    files = _Files(studio)
    return [
        Route(ADDRESS + "/{name}.svg", files.svg, methods=["GET"]),
        Route(ADDRESS + "/{name}.csv", files.csv, methods=["GET"]),
    ]


def named(studio: Studio, viewer: Viewer, run_ids: str) -> dict[str, Points]:
    """All that the runs reported, by name; NotFound when one is not the viewer's."""
    ids = list(dict.fromkeys(part for part in run_ids.split(",") if part))
    if not 0 < len(ids) <= MOST_RUNS:
        raise BadInput(f"Say which runs are meant, {MOST_RUNS} at most.")
    chosen = [studio.run(viewer, run_id) for run_id in ids]
    return {name: studio.metrics.whole(run_id) for run_id, name in own_names(chosen).items()}


class _Files:
    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    async def svg(self, request: Request) -> Response:
        return await run_in_threadpool(self._answer, request, "image/svg+xml", self._svg)

    async def csv(self, request: Request) -> Response:
        return await run_in_threadpool(self._answer, request, "text/csv; charset=utf-8", self._csv)

    def _svg(self, name: str, runs: dict[str, Points]) -> str:
        return as_svg(chart_named(name), runs)

    def _csv(self, name: str, runs: dict[str, Points]) -> str:
        return as_csv(runs, () if name == "all" else [line.key for line in chart_named(name).lines])

    def _answer(self, request: Request, kind: str, make: Callable[[str, dict[str, Points]], str]) -> Response:
        name = request.path_params["name"]
        try:
            viewer = self._studio.viewer(request)
            body = make(name, named(self._studio, viewer, request.query_params.get("runs", "")))
        except StudioError as error:
            status = 404 if isinstance(error, NotFound) else 403 if isinstance(error, NotAllowed) else 400
            return PlainTextResponse(str(error), status_code=status, headers={"cache-control": "no-store"})
        ending = "svg" if kind.startswith("image") else "csv"
        headers = {"cache-control": "no-store", "content-disposition": f'attachment; filename="{name}.{ending}"'}
        return Response(body, media_type=kind, headers=headers)
