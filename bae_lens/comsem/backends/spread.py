"""HTTP connections spread over many small pools.

A pool looks at each of its idle connections for every request, so that sixty-four connections in one pool cost more than all
the rest of a request. Each pool here has its turn, and has seldom more than one connection.
"""

import asyncio
import itertools

import httpx2
from typing_extensions import override


class SpreadTransport(httpx2.AsyncBaseTransport):
    """A transport for `httpx2.AsyncClient`.

    Args:
        pools: Their number; as many as there are requests at a time.
    """

    def __init__(self, pools: int):
        context = httpx2.create_ssl_context()
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=2, keepalive_expiry=60)
        self._pools = [httpx2.AsyncHTTPTransport(verify=context, limits=limits) for _ in range(pools)]
        self._turn = itertools.cycle(self._pools)

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Sends a request through the pool whose turn it is."""
        return await next(self._turn).handle_async_request(request)

    @override
    async def aclose(self) -> None:
        """Closes all pools."""
        await asyncio.gather(*(pool.aclose() for pool in self._pools))
