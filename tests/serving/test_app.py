"""The HTTP API of a real server: answers, refusals, and many at once."""

from __future__ import annotations

import http.client
import json
import random
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from running_server import Server, running
from small_models import WORDS

from metro_t0.evaluation.generation import generate_texts
from metro_t0.evaluation.loading import load_model
from metro_t0.evaluation.ranking.rank import rank

DRAW = random.Random(0)


def words(count: int) -> str:
    return " ".join(DRAW.choices(WORDS, k=count))


def refused(server: Server, path: str, body: Any, status: int, sentence: str) -> None:
    found, answer = server.post(path, body)
    assert (found, list(answer)) == (status, ["error"])
    assert sentence in answer["error"]
    assert "Traceback" not in answer["error"] and "\n" not in answer["error"]


def test_health(server: Server) -> None:
    status, _, body = server.request("GET", "/healthz")
    assert status == 200
    health = json.loads(body)
    assert health["status"] == "ok" and health["model"].endswith("/model")
    assert health["max_prompt_tokens"] == 128


def test_a_ranking_is_what_rank_says(server: Server, model_folder: Path) -> None:
    model, tokenizer = load_model(model_folder)
    questions = [
        {"prompt": words(n + 1), "choices": [words(k + 1) for k in range(n % 3 + 1)]} for n in range(9)
    ]
    questions[3]["choices"] = ["", "yes", "yes"]
    expected = rank(
        model, tokenizer, [str(q["prompt"]) for q in questions], [list(q["choices"]) for q in questions]
    )
    status, together = server.post("/rank", {"questions": questions})
    assert status == 200 and len(together["answers"]) == 9
    for question, answer, result in zip(questions, together["answers"], expected, strict=True):
        assert answer["log_likelihoods"] == pytest.approx(result.log_likelihoods, rel=1e-4, abs=1e-4)
        assert answer["prediction"] == result.prediction
        status, alone = server.post("/rank", question)
        assert status == 200
        assert alone["answers"][0]["log_likelihoods"] == pytest.approx(answer["log_likelihoods"], abs=1e-3)


@pytest.mark.parametrize(
    "settings",
    [{}, {"beams": 3}, {"temperature": 0.7, "seed": 5}, {"beams": 2, "temperature": 2.0, "seed": 1}],
    ids=str,
)
def test_an_answer_is_what_generate_says(
    server: Server, model_folder: Path, settings: dict[str, Any]
) -> None:
    model, tokenizer = load_model(model_folder)
    prompts = [words(n) for n in (3, 1, 12)]
    expected = generate_texts(model, tokenizer, prompts, max_new_tokens=7, **settings)
    status, answer = server.post("/generate", {"prompts": prompts, "max_new_tokens": 7, **settings})
    assert status == 200
    assert [written["output"] for written in answer["answers"]] == [one.output for one in expected]
    [alone] = generate_texts(model, tokenizer, prompts[:1], max_new_tokens=7, **settings)
    status, answer = server.post("/generate", {"prompt": prompts[0], "max_new_tokens": 7, **settings})
    assert status == 200 and answer["answers"] == [{"output": alone.output}]


def test_of_200_requests_at_once_none_is_lost_and_each_gets_its_own_answer(
    server: Server, model_folder: Path
) -> None:
    model, tokenizer = load_model(model_folder)
    asked: list[tuple[str, dict[str, Any]]] = []
    for number in range(200):
        prompt = words(1 + number % 20)
        if number % 2:
            asked.append(
                ("/rank", {"prompt": prompt, "choices": [words(1 + n) for n in range(number % 4 + 1)]})
            )
        else:
            settings: dict[str, Any] = {"max_new_tokens": 4 + number % 3}
            if number % 10 == 0:
                settings |= {"temperature": 1.5, "seed": number}
            asked.append(("/generate", {"prompt": prompt, **settings}))
    with ThreadPoolExecutor(200) as clients:
        found = list(clients.map(lambda one: server.post(*one), asked))
    assert [status for status, _ in found] == [200] * 200
    for (path, body), (_, answer) in zip(asked, found, strict=True):
        [got] = answer["answers"]
        prompt = body.pop("prompt")
        if path == "/rank":
            [expected] = rank(model, tokenizer, [prompt], [body["choices"]])
            assert got["log_likelihoods"] == pytest.approx(expected.log_likelihoods, rel=1e-4, abs=1e-4)
        else:
            [written] = generate_texts(model, tokenizer, [prompt], **body)
            assert got == {"output": written.output}
    assert json.loads(server.request("GET", "/healthz")[2])["waiting"] == 0


BAD_REQUESTS: list[tuple[str, Any, int, str]] = [
    ("/rank", b"no json", 400, "no JSON"),
    ("/rank", b"", 422, "missing"),
    ("/rank", b"\xff\xfe", 400, ""),
    ("/rank", b'{"prompt": "a", "choices": ["\\ud800"]}', 422, "choices.0"),
    ("/rank", b"[" * 100_000, 400, ""),
    ("/rank", b'{"prompt": "a", "choices": ' + b"9" * 9000 + b"}", 400, ""),
    ("/rank", [], 422, "must be a JSON object"),
    ("/rank", {"prompt": "a", "choices": []}, 422, "choices: give at least one"),
    ("/rank", {"prompt": "a"}, 422, "choices: this field is missing"),
    ("/rank", {"questions": []}, 422, "questions"),
    ("/rank", {"prompt": "a", "choices": "yes"}, 422, "choices"),
    ("/rank", {"prompt": 3, "choices": ["yes"]}, 422, "prompt"),
    ("/rank", {"prompt": "a", "choices": ["yes", None]}, 422, "choices.1"),
    ("/rank", {"prompt": "a", "choices": ["yes"] * 101}, 422, "choices"),
    ("/rank", {"prompt": "yes " * 200, "choices": ["yes"]}, 413, "at most 128 are read"),
    ("/rank", {"prompt": "a", "choices": ["yes " * 300]}, 413, "a choice has"),
    ("/rank", {"questions": [{"prompt": "a", "choices": ["yes"]}], "prompt": "a"}, 422, "no such field"),
    ("/generate", {"prompt": "a", "max_tokens": 3}, 422, "max_tokens: there is no such field"),
    ("/generate", {"prompt": "a", "max_new_tokens": "3"}, 422, "max_new_tokens"),
    ("/generate", {"prompt": "a", "max_new_tokens": True}, 422, "max_new_tokens"),
    ("/generate", {"prompt": "a", "max_new_tokens": 257}, 422, "max_new_tokens"),
    ("/generate", {"prompt": "a", "max_new_tokens": 200}, 413, "writes at most 127"),
    ("/generate", {"prompt": "a", "beams": 0}, 422, "beams"),
    ("/generate", {"prompt": "a", "temperature": 0}, 422, "temperature"),
    ("/generate", b'{"prompt": "a", "temperature": NaN}', 422, "temperature"),
    ("/generate", {"prompt": "a", "seed": -1}, 422, "seed"),
    ("/generate", {"prompts": ["a"] * 65}, 422, "prompts"),
    ("/generate", {"prompt": "a" * 20_001}, 422, "prompt"),
    ("/generate", {"prompt": "a" * 300_000}, 413, "more than 262144 bytes"),
]


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"), BAD_REQUESTS, ids=lambda part: str(part)[:40]
)
def test_a_bad_request_is_one_sentence(
    server: Server, path: str, body: Any, status: int, sentence: str
) -> None:
    refused(server, path, body, status, sentence)
    assert server.post("/rank", {"prompt": "a", "choices": ["yes"]})[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/generate", 405),
        ("PUT", "/rank", 405),
        ("POST", "/healthz", 405),
        ("GET", "/nothing", 404),
        ("GET", "/page/../app.py", 404),
        ("GET", "/page/%2e%2e/app.py", 404),
        ("GET", "/page/..%2f..%2f..%2fetc/passwd", 404),
        ("GET", "//etc/passwd", 404),
    ],
)
def test_only_what_is_there_answers(server: Server, method: str, path: str, status: int) -> None:
    found, headers, body = server.request(method, path)
    assert found == status
    assert list(json.loads(body)) == ["error"]
    assert ("allow" in headers) == (status == 405)


def test_a_body_must_be_announced_as_json(server: Server) -> None:
    """A page of another site may send plain text without asking; this keeps it out."""
    body = json.dumps({"prompt": "a", "choices": ["yes"]}).encode()
    for headers in (
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ):
        status, _, answer = server.request("POST", "/rank", body, headers)
        assert status == 415 and "application/json" in json.loads(answer)["error"]
    status, _, _ = server.request("POST", "/rank", body, {"Content-Type": "Application/JSON; charset=utf-8"})
    assert status == 200


@pytest.mark.parametrize("megabytes", [1, 24])
def test_a_huge_body_without_a_length(server: Server, megabytes: int) -> None:
    """A client is let finish, so that it reads the answer; but not for ever."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.putrequest("POST", "/generate")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    try:
        for _ in range(megabytes):
            connection.send(b"100000\r\n" + b"a" * (1 << 20) + b"\r\n")
        connection.send(b"0\r\n\r\n")
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        assert megabytes == 24
    finally:
        connection.close()


def test_clients_that_go_away_leave_nothing_behind(server: Server) -> None:
    body = json.dumps({"prompts": ["yes no"] * 64, "max_new_tokens": 100}).encode()
    fields = ["Host: a", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    head = "\r\n".join(["POST /generate HTTP/1.1", *fields, "", ""])
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head.encode() + body)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + body[:10])
    while json.loads(server.request("GET", "/healthz")[2])["waiting"]:
        pass
    assert server.post("/rank", {"prompt": "a", "choices": ["yes"]})[0] == 200


def test_limits_of_time_and_queue(model_folder: Path) -> None:
    slow = {"prompts": ["yes no maybe"] * 64, "max_new_tokens": 120, "beams": 8}
    with running(model_folder, "--timeout", "1", "--queue", "2") as server, ThreadPoolExecutor(8) as clients:
        found = list(clients.map(lambda body: server.post("/generate", body), [slow] * 8))
        sentences = {answer["error"] for status, answer in found if status == 503}
        assert any("within 1 seconds" in sentence for sentence in sentences)
        assert any("too many requests" in sentence for sentence in sentences)
        assert {status for status, _ in found} <= {200, 503}
        status, answer = 503, None
        while status == 503:
            status, answer = server.post("/rank", {"prompt": "a", "choices": ["yes"]})
        assert status == 200 and answer["answers"][0]["prediction"] == 0


def test_the_official_checkpoint_answers_officially(golden: Path) -> None:
    pytest.importorskip("fastapi")
    cases = json.loads((golden / "rank" / "cases.json").read_text(encoding="utf-8"))
    written = json.loads((golden / "hf_tiny" / "cases.json").read_text(encoding="utf-8"))
    with running(golden / "hf_tiny") as server:
        questions = [{"prompt": case["input"], "choices": case["choices"]} for case in cases]
        status, answer = server.post("/rank", {"questions": questions})
        assert status == 200
        for got, case in zip(answer["answers"], cases, strict=True):
            assert got["log_likelihoods"] == pytest.approx(case["log_likelihood"], rel=1e-4, abs=1e-4)
            assert got["prediction"] == case["prediction"]
        status, answer = server.post("/generate", {"prompts": written["strings"], "max_new_tokens": 16})
        assert status == 200
        assert [one["output"] for one in answer["answers"]] == [
            text.strip() for text in written["decoded_greedy"]
        ]
        assert server.stop() == 0
