"""The HTTP application: routes, their errors as one JSON sentence, and the page.

    app = create_app(Engine(model, tokenizer), name="runs/finetune")
    uvicorn.run(app)

Needs the extra ``serve`` (FastAPI). Who calls it sees ``{"error": "..."}`` whatever goes wrong; tracebacks go to
the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

import metro_t0
from metro_t0.serving.batching import (
    Batcher,
    ClosedError,
    FailedError,
    Kind,
    QueueFullError,
    RefusedError,
)
from metro_t0.serving.body import WholeBody
from metro_t0.serving.engine import Engine, Question, Ranking, Writing
from metro_t0.serving.page import add_pages
from metro_t0.serving.schemas import (
    MAX_BODY_BYTES,
    GenerateAnswer,
    GenerateMany,
    GenerateRequest,
    Health,
    Problem,
    RankAnswer,
    Ranked,
    RankMany,
    RankRequest,
    Written,
)

_DESCRIPTION = """Ask a text-to-text model. POST /rank says which of your answers it finds likeliest after a prompt,
POST /generate lets it answer in its own words. Requests that arrive together are computed together."""
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is no JSON."},
    408: {"model": Problem, "description": "The body did not arrive in time."},
    413: {
        "model": Problem,
        "description": f"The body has more than {MAX_BODY_BYTES} bytes, or a text more tokens than the model reads.",
    },
    415: {"model": Problem, "description": "The body is not announced as application/json."},
    422: {
        "model": Problem,
        "description": "A field is missing, unknown, of another type, or out of its bounds.",
    },
    500: {"model": Problem, "description": "The model failed on this request."},
    503: {"model": Problem, "description": "Too much to do, or stopping: try again later."},
}
_SAID_PLAINLY = {
    "extra_forbidden": "there is no such field",
    "too_short": "give at least one",
    "missing": "this field is missing",
    "model_attributes_type": "the body must be a JSON object",
}
_RETRY_AFTER = {"Retry-After": "5"}


@dataclass(frozen=True)
class Patience:
    """What the server bears.

    Attributes:
        answer_seconds: how long a request may wait for its answer; then it is given up.
        body_seconds: how long a body may take to arrive.
        most_waiting: requests that may wait or be worked on.
    """

    answer_seconds: float = 120.0
    body_seconds: float = 20.0
    most_waiting: int = 512


def create_app(engine: Engine, *, name: str, patience: Patience | None = None) -> FastAPI:
    """The application around one model; its batcher lives from start-up to shutdown.

    Args:
        engine: the model; only the batcher's thread uses it.
        name: of the model, as people know it.
        patience: time and queue limits.
    """
    patience = patience or Patience()

    @asynccontextmanager
    async def batching(app: FastAPI) -> AsyncIterator[None]:
        app.state.routes = _Routes(engine, name, patience)
        yield
        await asyncio.to_thread(app.state.routes.batcher.close)

    app = FastAPI(
        title="metro-t0",
        description=_DESCRIPTION,
        version=metro_t0.__version__,
        lifespan=batching,
        docs_url=None,
        redoc_url=None,
    )
    posts: dict[str, tuple[Callable[..., Any], type]] = {
        "/generate": (_generate, GenerateAnswer),
        "/rank": (_rank, RankAnswer),
    }
    for path, (endpoint, answer) in posts.items():
        name_of_route = path.removeprefix("/")
        app.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            name=name_of_route,
            operation_id=name_of_route,
            response_model=answer,
            response_description="The answers.",
            responses=_PROBLEMS,
        )
    app.add_api_route(
        "/healthz",
        _healthz,
        name="health",
        operation_id="healthz",
        response_model=Health,
        response_description="It answers.",
        responses={503: {"model": Health, "description": "It is stopping."}},
    )
    add_pages(app)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(Exception, _broken)
    app.add_middleware(WholeBody, paths=posts, most_bytes=MAX_BODY_BYTES, seconds=patience.body_seconds)
    return app


class _Routes:
    """What the routes share while the application runs."""

    def __init__(self, engine: Engine, name: str, patience: Patience) -> None:
        self.engine = engine
        self.name = name
        self.patience = patience
        self.batcher = Batcher(engine.answer, refuse=engine.refusal, most_waiting=patience.most_waiting)

    async def answers(self, request: Request, kind: Kind, rows: Sequence[Any]) -> list[Any]:
        """The batcher's answers, or an HTTPException that says why there are none."""
        try:
            queued = self.batcher.submit(kind, rows)
        except QueueFullError:
            raise HTTPException(503, "too many requests are waiting; try again later", _RETRY_AFTER) from None
        except ClosedError:
            raise HTTPException(503, "the server is stopping", _RETRY_AFTER) from None
        answer = asyncio.wrap_future(queued)
        gone = asyncio.ensure_future(_disconnected(request))
        either: set[asyncio.Future[Any]] = {answer, gone}
        patience = self.patience.answer_seconds
        try:
            await asyncio.wait(either, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            answer.cancel()
        if answer.cancelled():
            waited = f"there was no answer within {patience:g} seconds"
            raise HTTPException(503, f"{waited}; ask for less at once, or try again later", _RETRY_AFTER)
        try:
            return answer.result()
        except RefusedError as refused:
            raise HTTPException(413, str(refused)) from None
        except FailedError:
            raise HTTPException(500, "the model failed on this request") from None


async def _disconnected(request: Request) -> None:
    """Returns when the client has gone; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _generate(request: Request, body: Annotated[GenerateRequest, Body()]) -> GenerateAnswer:
    """Answer each prompt in the model's own words."""
    kind = Writing(body.max_new_tokens, body.beams, body.temperature, body.seed)
    prompts = body.prompts if isinstance(body, GenerateMany) else [body.prompt]
    written = await request.app.state.routes.answers(request, kind, prompts)
    return GenerateAnswer(answers=[Written(output=answer.output) for answer in written])


async def _rank(request: Request, body: Annotated[RankRequest, Body()]) -> RankAnswer:
    """Rank each prompt's choices by their likelihood after it."""
    asked = body.questions if isinstance(body, RankMany) else [body]
    questions = [Question(question.prompt, tuple(question.choices)) for question in asked]
    ranked = await request.app.state.routes.answers(request, Ranking(), questions)
    return RankAnswer(
        answers=[
            Ranked(log_likelihoods=answer.log_likelihoods, prediction=answer.prediction) for answer in ranked
        ]
    )


async def _healthz(request: Request, response: Response) -> Health:
    """Whether requests are answered."""
    routes: _Routes = request.app.state.routes
    if not routes.batcher.alive:
        response.status_code = 503
    return Health(
        status="ok" if routes.batcher.alive else "stopping",
        model=routes.name,
        waiting=routes.batcher.waiting,
        max_prompt_tokens=routes.engine.max_prompt_tokens,
    )


def problem(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The one form that errors have."""
    return JSONResponse({"error": sentence}, status, headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return problem(400, f"the body is no JSON: {first['ctx']['error']} at character {first['loc'][-1]}")
    # The tags of a union are no names of fields.
    place = [str(part) for part in first["loc"][1:] if part not in ("one", "many")]
    said = _SAID_PLAINLY.get(first["type"], first["msg"])
    return problem(422, f"{'.'.join(place)}: {said}" if place else said)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return problem(error.status_code, str(error.detail), dict(error.headers or {}))


async def _broken(request: Request, error: Exception) -> Response:
    return problem(500, "the server failed on this request")
