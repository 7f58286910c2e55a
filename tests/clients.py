"""The two kinds of client, so that one test tries both."""

import asyncio

from keras_parti.serving.client import AsyncClient, Client


class Awaiting:
    """An `AsyncClient` whose methods are awaited, one after another."""

    def __init__(self, *args, **kwargs):
        self.runner = asyncio.Runner()
        self.client = self.runner.run(self.make(*args, **kwargs))
        self.address = self.client.address

    async def make(self, *args, **kwargs):
        return AsyncClient(*args, **kwargs)

    def __getattr__(self, name):
        def method(*args, **kwargs):
            return self.runner.run(getattr(self.client, name)(*args, **kwargs))

        return method

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.runner.run(self.client.close())
        self.runner.close()

    def __del__(self):
        self.runner.close()


KINDS, NAMES = [Client, Awaiting], ["blocking", "asyncio"]
