"""Keys, tokens of an issuer, tenants, limits and the audit log, before the real routes and the real predictor."""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from infill import cli
from infill.errors import InputError, ServiceError
from serving.client import complete
from serving.predictor.llama_cpp_engine import LlamaCppEngine
from serving.predictor.transformers_engine import TransformersEngine
from serving.transformer import access, keys
from serving.transformer.transformer_config import TransformerConfig
from tests.serving.conftest import HTTP, predicting, say, strange_predictor, transforming

BODY = {"prompt": "def area(width):\n    return ", "path": "a.py", "max_tokens": 4, "temperature": 0, "session": "s"}


def ask(url: str, key: str = "", **fields: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return HTTP.post(f"{url}/v1/completions", json=BODY | fields, headers=headers)


@pytest.fixture(scope="module")
def predictor(model: Path, engine: TransformersEngine) -> Iterator[str]:
    with predicting(model, engine) as url:
        yield url


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "a folder" / "keys.json"


def test_only_a_key_of_the_file_is_let_in_and_a_revoked_one_no_longer(model: Path, predictor: str, file: Path) -> None:
    key, other = keys.add(file, "team-a"), keys.add(file, "team-b")
    with transforming(model, predictor, keys=str(file)) as (url, _):
        assert ask(url, key).status_code == 200
        for wrong in (
            "x",
            key[:-1],
            key.swapcase(),
            key + "a",
            other.rpartition("_")[0] + key[19:],
            "infill_",
            "é",
        ):
            headers = {b"authorization": f"Bearer {wrong}".encode()}
            refused = HTTP.post(f"{url}/v1/completions", json=BODY, headers=headers)
            assert refused.status_code == 401, wrong
            assert refused.json()["error"]["code"] == "invalid_api_key"
            assert refused.headers["www-authenticate"] == "Bearer"
            assert wrong not in refused.text or wrong == "x"
        keys.revoke(file, key.split("_")[1])
        assert ask(url, key).status_code == 401
        assert ask(url, other).status_code == 200
        assert ask(url, keys.add(file, "team-a")).status_code == 200


def test_every_address_but_the_page_asks_for_the_key(model: Path, predictor: str, file: Path) -> None:
    keys.add(file, "team-a")
    with transforming(model, predictor, keys=str(file)) as (url, _):
        described = HTTP.get(f"{url}/openapi.json").json()["paths"]
        answers = {
            (method, path): HTTP.request(method, f"{url}{path}", json={}).status_code
            for path, methods in described.items()
            for method in methods
        }
        assert len(answers) > 10
        assert {where for where, status in answers.items() if status != 401} == set()
        assert HTTP.get(f"{url}/").status_code == 200


def test_a_file_that_breaks_leaves_the_keys_as_they_were(model: Path, predictor: str, file: Path) -> None:
    key = keys.add(file, "team-a")
    with transforming(model, predictor, keys=str(file)) as (url, _):
        file.write_text("{")
        assert ask(url, key).status_code == 200
        assert ask(url, "infill_other_key").status_code == 401
        file.unlink()
        assert ask(url, key).status_code == 200


def test_our_own_client_sends_the_key_of_the_environment(
    model: Path, predictor: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code.py").write_text("x = 1\n")
    caret: dict[str, Any] = {"repo": str(tmp_path), "path": "code.py", "line": 1, "column": 5, "max_tokens": 2}
    keys.add(file, "team-b")
    with transforming(model, predictor, keys=str(file)) as (url, _):
        monkeypatch.delenv("INFILL_API_KEY", raising=False)
        with pytest.raises(ServiceError, match="put one into INFILL_API_KEY"):
            complete(url, **caret)
        monkeypatch.setenv("INFILL_API_KEY", keys.add(file, "team-a") + "\n")
        assert complete(url, **caret)["prompt_tokens"] > 0


def test_an_expired_key_is_refused(model: Path, predictor: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = keys.add(file, "team-a", expires="2999-01-01")
    with transforming(model, predictor, keys=str(file)) as (url, _):
        assert ask(url, key).status_code == 200
        from datetime import date

        monkeypatch.setattr(keys, "today", lambda: date(2999, 1, 1))
        assert ask(url, key).status_code == 401


def test_the_file_holds_no_secret_and_is_for_its_owner_alone(file: Path) -> None:
    key = keys.add(file, "team-a", note="Jane's laptop")
    text = file.read_bytes()
    assert key.split("_", 2)[2].encode() not in text
    assert b"Jane's laptop" in text
    assert file.stat().st_mode & 0o077 == 0
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize("engine_name", ["transformers", "llama.cpp"])
def test_no_prompt_of_one_tenant_is_in_the_cache_of_another(
    engine_name: str, model: Path, engine: TransformersEngine, file: Path, request: pytest.FixtureRequest
) -> None:
    engine.cache.clear()
    a, b, a_too = (keys.add(file, tenant) for tenant in ("team-a", "team-b", "team-a"))
    chosen: Any = engine if engine_name == "transformers" else LlamaCppEngine(model, threads=1)
    if engine_name == "llama.cpp":
        request.addfinalizer(chosen.close)
    question = {"prompt": "def only_" + "".join(f"x{place} = {place}\n" for place in range(20))}
    with predicting(model, chosen) as inner, transforming(model, inner, keys=str(file)) as (url, _):

        def cached(key: str) -> int:
            answer = ask(url, key, **question).json()
            return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])

        assert cached(a) == 0
        assert cached(a) > 0
        assert cached(a_too) > 0
        assert cached(b) == 0


def test_the_clients_key_does_not_reach_the_predictor(model: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = keys.add(file, "team-a")
    with strange_predictor(say("200 OK", "{}")) as (inner, stranger):
        monkeypatch.setenv("INFILL_PREDICTOR_KEY", "inner-secret")
        with transforming(model, inner, keys=str(file)) as (url, _):
            ask(url, key)
    [(head, body)] = stranger.requests
    assert key not in head
    assert "authorization: Bearer inner-secret" in head
    assert len(json.loads(body)["cache_salt"]) == 32


def test_a_tenant_that_asks_too_often_waits_and_the_others_do_not(model: Path, predictor: str, file: Path) -> None:
    a, b = keys.add(file, "team-a"), keys.add(file, "team-b")
    with transforming(model, predictor, keys=str(file), tenant_requests=3) as (url, _):
        assert [ask(url, a).status_code for _ in range(4)] == [200, 200, 200, 429]
        late = ask(url, keys.add(file, "team-a"))
        assert late.status_code == 429
        assert 1 <= int(late.headers["retry-after"]) <= 60
        assert "3 requests a minute" in late.json()["error"]["message"]
        assert ask(url, b).status_code == 200


def test_a_tenants_tokens_of_a_day_are_counted(model: Path, predictor: str, file: Path) -> None:
    key = keys.add(file, "team-a")
    with transforming(model, predictor, keys=str(file), tenant_tokens=60) as (url, _):
        statuses = [ask(url, key, stream=place % 2 == 0).status_code for place in range(8)]
    assert statuses[:2] == [200, 200]
    assert statuses[-1] == 429


def test_the_audit_log_tells_who_and_how_much_but_no_code(
    model: Path, predictor: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = keys.add(file, "team-a")
    with caplog.at_level(logging.INFO, "infill.audit"), transforming(model, predictor, keys=str(file)) as (url, _):
        ask(url, key, path="secret_project/plan.py")
        ask(url)
    rows = [json.loads(record.message) for record in caplog.records if record.name == "infill.audit"]
    assert [row["event"] for row in rows] == ["request", "answer", "request"]
    assert [row["tenant"] for row in rows] == ["team-a", "team-a", ""]
    assert rows[1]["prompt_tokens"] > 0 < rows[1]["completion_tokens"]
    assert rows[0]["request"] == rows[1]["request"]
    assert (rows[0]["status"], rows[2]["status"]) == (200, 401)
    reported = json.dumps(rows)
    assert not [word for word in ("area", "plan.py", key, key.split("_", 2)[2]) if word in reported]


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


def published_keys() -> list[dict[str, str]]:
    """An RSA and an elliptic key, as an issuer publishes them."""
    return [
        json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key())) | {"kid": "rsa", "use": "sig"},
        json.loads(jwt.algorithms.ECAlgorithm.to_jwk(EC.public_key())) | {"kid": "ec", "use": "sig"},
    ]


@contextmanager
def issuing(published: list[dict[str, str]] | None = None) -> Iterator[str]:
    """The URL of an OpenID Connect issuer."""
    published = published_keys() if published is None else published

    class Issuer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            at = f"http://{self.headers['host']}"
            pages = {
                "/.well-known/openid-configuration": {"issuer": f"{at}/", "jwks_uri": f"{at}/keys"},
                "/keys": {"keys": published},
            }
            body = json.dumps(pages[self.path]).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Issuer)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def token(issuer: str, key: Any = RSA, kid: str = "rsa", algorithm: str = "RS256", **claims: Any) -> str:
    usual = {"iss": issuer, "aud": "infill", "sub": "jane", "team": "team-a", "exp": int(time.time()) + 300}
    values = {name: value for name, value in (usual | claims).items() if value is not None}
    return jwt.encode(values, key, algorithm=algorithm, headers={"kid": kid})


def test_a_token_of_the_issuer_is_let_in_and_no_other(model: Path, predictor: str, file: Path) -> None:
    key = keys.add(file, "team-a")
    with issuing() as issuer:
        settings = {"oidc_issuer": issuer, "oidc_audience": "infill", "oidc_tenant": "team", "keys": str(file)}
        with transforming(model, predictor, **settings) as (url, _):
            good = [
                token(issuer),
                token(issuer, iss=f"{issuer}/"),
                token(issuer, EC, "ec", "ES256"),
                token(issuer, aud=["other", "infill"]),
                token(issuer, exp=int(time.time()) - 20),  # the clocks may differ
                key,
            ]
            assert [ask(url, each).status_code for each in good] == [200] * len(good)
            bad = [
                token(issuer, OTHER),
                token(issuer, kid="unknown"),
                token(issuer, aud="other"),
                token(issuer, iss="https://elsewhere.example"),
                token(issuer, exp=int(time.time()) - 300),
                token(issuer, exp=None),
                token(issuer, sub=None),
                token(issuer, "shared secret of more than thirty-two bytes", algorithm="HS256"),
                token(issuer).rpartition(".")[0] + ".",
                "infill_unknown_key",
                "x" * 20_000,
            ]
            assert [ask(url, each).status_code for each in bad] == [401] * len(bad)
            assert [ask(url, token(issuer, team=team)).status_code for team in (None, 7, "", "a b")] == [403] * 4


def test_keys_that_the_issuer_publishes_later_are_found_and_known_ones_outlive_it(
    model: Path, predictor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = published_keys()[:1]
    with issuing(published) as issuer:
        settings = {"oidc_issuer": issuer, "oidc_audience": "infill"}
        with transforming(model, predictor, **settings) as (url, _):
            later = token(issuer, EC, "ec", "ES256")
            assert [ask(url, each).status_code for each in (token(issuer), later)] == [200, 401]
            published += published_keys()[1:]
            assert ask(url, later).status_code == 401  # it was asked a moment ago
            monkeypatch.setattr(access, "RETRY_S", 0)
            assert ask(url, later).status_code == 200
            published.clear()  # it answers, but with nothing of use
            monkeypatch.setattr(access, "KEYS_S", 0)
            assert [ask(url, each).status_code for each in (token(issuer), later)] == [200, 200]


def test_an_issuer_that_hangs_holds_up_nobody_who_has_a_key(
    model: Path, predictor: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "FETCH_S", 60.0)
    key = keys.add(file, "team-a")
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(8) as pool:
        issuer = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = {"oidc_issuer": issuer, "oidc_audience": "infill", "keys": str(file)}
        with transforming(model, predictor, **settings) as (url, _):
            waiting = [pool.submit(ask, url, token(issuer)) for _ in range(8)]
            connection, _ = silent.accept()  # and it never answers
            assert ask(url, key).status_code == 200
            assert not any(each.done() for each in waiting)
            connection.close()
            assert [each.result().status_code for each in waiting] == [503] * 8


def test_keys_that_are_made_at_once_are_all_kept(file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(lambda number: keys.add(file, f"team-{number}"), range(24)))
    assert {key.split("_")[1] for key in entries} == set(keys.load(file))


def test_an_issuer_that_cannot_be_asked_is_not_the_clients_fault(model: Path, predictor: str) -> None:
    with issuing() as issuer:
        pass
    settings = {"oidc_issuer": issuer, "oidc_audience": "infill"}
    with transforming(model, predictor, **settings) as (url, _):
        refused = ask(url, token(issuer))
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "10"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"oidc_issuer": "https://login.example"}, "belong together"),
        ({"oidc_issuer": "login.example", "oidc_audience": "infill"}, "must be an https:// URL"),
        ({"tenant_requests": 5}, "need keys or oidc_issuer"),
        ({"tenant_tokens": -1}, "must not be negative"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformerConfig(model="m", **settings)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"keys": [{"id": 1}]}', '{"keys": [{"id":"a","tenant":"a b","sha256":"","created":"2026-01-01"}]}'],
)
def test_what_is_not_a_key_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(InputError, match="infill keys add"):
        keys.load(tmp_path / "keys.json")


def test_keys_are_made_listed_and_revoked_on_the_command_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--file", str(file)]
    assert cli.main(["keys", "add", *at, "--tenant", "team-a", "--note", "Jane"]) == 0
    key = capsys.readouterr().out.strip()
    identifier = key.split("_")[1]
    assert cli.main(["keys", "list", *at]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["id"], row["tenant"], row["note"]) == (identifier, "team-a", "Jane")
    assert cli.main(["keys", "revoke", *at, identifier]) == 0
    assert keys.load(file) == {}
    capsys.readouterr()
    for wrong, said in (
        (["revoke", *at, "nobody"], "holds no key"),
        (["add", *at, "--tenant", "a b"], "tenant must be a name"),
        (["add", *at, "--tenant", "a", "--expires", "soon"], "must be a date"),
        (["add", *at, "--tenant", "a", "--expires", "2020-01-01"], "not after today"),
    ):
        assert cli.main(["keys", *wrong]) == 2
        message = capsys.readouterr().err
        assert said in message
        assert message.count("\n") == 1
