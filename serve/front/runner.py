"""Carries predictions out, apart from the requests that asked for them; takes over those of fronts that died."""

import asyncio
import json
import logging
import secrets
import sqlite3
from contextlib import aclosing, suppress
from datetime import UTC, datetime

from serve.accounts import Caller
from serve.answer import Generation, Progress
from serve.dialects import replicate
from serve.dialects.body import checked
from serve.dialects.replicate import Input
from serve.errors import RequestError
from serve.front.desk import Desk
from serve.front.gone import CLIENT_CLOSED_REQUEST, ended
from serve.front.links import is_done, present, start_of
from serve.front.meters import Meters
from serve.front.predictions import LEASE_S, Predictions, State
from serve.front.visits import Visit, tell
from serve.front.webhooks import Webhooks

logger = logging.getLogger("ray.serve")

NEWS_S = 0.5
"""Between two changes of a prediction's logs, and two messages of them, as on Replicate."""
LOOK_S = 0.25
"""How often one looks for news of a prediction that may run elsewhere."""
NO_ROOM_S = 1.0
"""Between two attempts to find room in the engine's queue."""
PATIENCE_S = 600.0
"""How long a prediction waits for room."""
ROUND_S = LEASE_S / 5
CLEAN_ROUNDS = 20
"""Between two looks at what is old."""


class Runner:
    """One for a front; `keep` runs as long as the front does."""

    def __init__(self, desk: Desk, store: Predictions, webhooks: Webhooks, meters: Meters) -> None:
        self.desk, self.store, self.webhooks, self.meters = desk, store, webhooks, meters
        self.name = secrets.token_hex(8)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._messages: set[asyncio.Task[None]] = set()

    def begin(self, id: str) -> None:
        """Start a prediction that this front holds the lease of."""
        task = asyncio.create_task(self._run(id), name=id)
        self._running[id] = task
        task.add_done_callback(lambda _: self._running.pop(id, None))

    async def done(self, id: str, most_s: float) -> None:
        """Wait until a prediction is done, wherever it runs, or so many seconds are over."""
        if task := self._running.get(id):
            await asyncio.wait((task,), timeout=most_s)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while (state := await asyncio.to_thread(self.store.get, id)) is not None and not is_done(state):
                    await asyncio.sleep(LOOK_S)

    async def cancel(self, id: str) -> None:
        """End a prediction, wherever it runs: another front sees it when it next renews its lease."""
        changed = await asyncio.to_thread(self.store.change, id, status="canceled", completed_at=now())
        if task := self._running.get(id):
            task.cancel()
        if changed is not None:
            self._tell(changed, "completed")

    async def keep(self) -> None:
        """Renew leases, take over what was left behind, forget what is old; for ever, until cancelled."""
        rounds = 0
        try:
            while True:
                try:
                    await self._round(clean=rounds % CLEAN_ROUNDS == 0)
                except sqlite3.Error:
                    logger.exception("the predictions cannot be reached; trying again")
                rounds += 1
                await asyncio.sleep(ROUND_S)
        finally:
            await ended(*self._running.values(), *self._messages)
            self.store.let_go(self.name)

    async def _round(self, clean: bool) -> None:
        held = list(self._running)
        kept = await asyncio.to_thread(self.store.renew, self.name, held)
        for id in set(held) - kept:
            if task := self._running.get(id):
                task.cancel()  # cancelled through another front, or taken over by one
        for id in await asyncio.to_thread(self.store.claim, self.name):
            logger.info("%s was left behind by its front: drawing it here", id)
            self.begin(id)
        if clean:
            await asyncio.to_thread(self.store.clean)

    async def _run(self, id: str) -> None:
        state = await asyncio.to_thread(self.store.change, id, status="processing", started_at=now())
        if state is None:
            return
        visit = Visit("replicate", id=id, caller=Caller(**state["run"]["caller"]))
        status = CLIENT_CLOSED_REQUEST
        try:
            self._tell(state, "start")
            made = await self._with_patience(visit, state)
            output = await asyncio.to_thread(self._keep_files, state, made)
            status = 200
            end = {"status": "succeeded", "output": output, "metrics": {"predict_time": round(visit.seconds, 3)}}
        except RequestError as error:
            status, visit.error = error.status, error.code
            end = {"status": "failed", "error": error.message}
        except Exception:
            logger.exception("%s failed", id)
            status, visit.error = 500, "server_error"
            end = {"status": "failed", "error": f"The server failed on this prediction; its log names {id}"}
        finally:
            tell(visit, status, self.meters, prediction=id)
        state = await asyncio.to_thread(self.store.change, id, completed_at=now(), **end)
        if state is not None:
            if state["output"]:
                self._tell(state, "output")
            self._tell(state, "completed")

    async def _with_patience(self, visit: Visit, state: State) -> Generation:
        """Draw as soon as there is room: nobody waits for a prediction on a connection, so that a full queue, or a
        minute in which its account has asked for enough, need not end it."""
        clock = asyncio.get_running_loop()
        deadline = clock.time() + PATIENCE_S
        while True:
            try:
                return await self._draw(visit, state)
            except RequestError as error:
                wait_s = getattr(error, "retry_after_s", NO_ROOM_S) if error.status == 429 else None
                if wait_s is None or clock.time() + wait_s > deadline:
                    raise
            await asyncio.sleep(wait_s)

    async def _draw(self, visit: Visit, state: State) -> Generation:
        told = checked(Input, state["input"])
        start = await asyncio.to_thread(start_of, told, self.store, state["run"]["account"])
        request = replicate.to_request(told, start)
        logs, last = "", 0.0
        async with aclosing(self.desk.draw(visit, request)) as events:
            async for event in events:
                if isinstance(event, Generation):
                    return event
                now_s = asyncio.get_running_loop().time()
                if isinstance(event, Progress) and (now_s - last > NEWS_S or event.made == event.of):
                    logs, last = logs + replicate.progress_line(event.made, event.of), now_s
                    changed = await asyncio.to_thread(self.store.change, visit.id, logs=logs)
                    if changed is None:
                        raise asyncio.CancelledError("cancelled through another front")
                    self._tell(changed, "logs")
        raise AssertionError("the desk ends with pictures or raises")

    def _keep_files(self, state: State, made: Generation) -> list[str]:
        form, account = state["input"].get("output_format", "png"), state["run"]["account"]
        return [
            self.store.keep_file(account, f"out-{index}.{form}", f"image/{form}", picture.data).id
            for index, picture in enumerate(made.pictures)
        ]

    def _tell(self, state: State, event: str) -> None:
        """Send the prediction to the webhooks that want to hear of this; drawing goes on meanwhile."""
        for url, events in state["run"]["webhooks"]:
            if event in events:
                task = asyncio.create_task(self._send(url, state, event))
                self._messages.add(task)
                task.add_done_callback(self._messages.discard)

    async def _send(self, url: str, state: State, event: str) -> None:
        run = state["run"]
        told = await asyncio.to_thread(present, state, self.store, run["base"])
        message = f"{state['id']}-{event}" if event in ("start", "completed") else f"msg_{secrets.token_hex(12)}"
        await self.webhooks.tell(url, run["account"], message, json.dumps(told).encode(), event == "completed")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
