"""Concurrent requests to an exported chain get the answers that each gets alone."""

import concurrent.futures

import numpy as np
import pytest
from serving_calls import metrics, ours
from small_chain import PROMPTS, assert_same, columns

pytestmark = ours


def requests():
    """Requests of all kinds, the bad ones with what their error says."""
    ids = np.arange(9, dtype=np.int32)[None]
    for seed in range(12):
        prompts = [PROMPTS[seed % 3]] * (1 + seed % 3)
        options = {"top_k": 3} if seed % 4 == 1 else {}
        yield "generate", columns(prompts, seed=seed, **options), None
        yield "decode", {"ids": (ids + seed) % 23}, None
        if seed % 4 == 0:
            yield "generate_best", columns(prompts[:1], seed=seed), None
            yield "generate", {"prompt": columns(prompts)["prompt"]}, None
        if seed % 5 == 0:
            wrong = columns(prompts, guidance_scale=31 + seed)
            yield "generate", wrong, f"Received: {31 + seed}"
            yield "decode", {"ids": ids + 15 + seed}, "ids must lie in"


def test_mixed_requests_at_once_are_answered_as_alone(exported_client):
    def ask(request):
        signature, inputs, _ = request
        try:
            return exported_client.predict(signature, inputs)
        except ValueError as error:
            return str(error)

    asked = list(requests())
    alone = [ask(request) for request in asked]
    for (_, _, words), answer in zip(asked, alone, strict=True):
        assert words in answer if words else isinstance(answer, dict)
    for clients in (3, 9):
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            together = list(pool.map(ask, asked))
        for one, other in zip(alone, together, strict=True):
            if isinstance(one, str):
                assert one == other
            else:
                assert_same(one, other)


@pytest.mark.slow
def test_joined_runs_are_fewer_than_requests(exported):
    from keras_parti.serving.client import Client
    from keras_parti.serving.server import Server

    def draw(seed):
        return client.predict("generate", columns(["a fox"], seed=seed))["ids"]

    with (
        Server(exported.parent, port=0, rest_port=0) as server,
        Client(server.address, model="toy") as client,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        found = list(pool.map(draw, range(64)))
        counted = metrics(server)
    assert counted["keras_parti_runs_requests"] == 64
    assert counted["keras_parti_runs"] < 40
    assert len({ids.tobytes() for ids in found}) == 64
