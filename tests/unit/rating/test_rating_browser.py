"""The page for raters in a real Chromium, before the real server."""

import socket
import threading
from pathlib import Path

import pytest
import uvicorn

from infill.artifacts.rating import EQUAL, SKIP, read_ratings
from infill.rating.rating_server import RatingSession, application
from tests import chromium
from tests.unit.rating import rating_sets

ITEMS = 6


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_rater_works_through_a_set_in_chromium(tmp_path: Path) -> None:
    folder = rating_sets.build(tmp_path, ITEMS)
    app = application(RatingSession(folder, "ada"))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            chromium.drive("rate.mjs", tmp_path, f"http://127.0.0.1:{bound.getsockname()[1]}/", str(ITEMS))
        finally:
            server.should_exit = True
            thread.join()
    ratings = read_ratings(str(folder))
    assert len(ratings) == ITEMS
    choices = [rating["choice"] for rating in ratings]
    assert (choices.count(EQUAL), choices.count(SKIP)) == (1, 1)
    assert sum(rating["choice"] == rating["left"] for rating in ratings) == 1  # the first; the others are right
