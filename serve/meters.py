"""What the engine tells Prometheus, through the exporter that Ray runs on every node.

Ray Serve adds the tags deployment, replica and application by itself. Outside a cluster the numbers go nowhere, at
three microseconds each.
"""

from ray.serve import metrics

SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30]
ROWS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]


class Meters:
    """The engine's half: queue, steps, bank, decoder and text towers."""

    def __init__(self) -> None:
        histogram, gauge, counter = metrics.Histogram, metrics.Gauge, metrics.Counter
        self._step_s = histogram("ssd1b_step_seconds", "One denoising step of a batch", SECONDS)
        self._step_rows = histogram("ssd1b_step_rows", "Pictures that a step took further", ROWS)
        self._row_steps = counter("ssd1b_row_steps", "Denoising steps of pictures")
        self._fill = gauge("ssd1b_batch_fill", "Rows of the last step, of as many as fit")
        self._queue = gauge("ssd1b_queue_requests", "Requests that wait for room or an adapter")
        self._work = gauge("ssd1b_row_steps_left", "Denoising to do, queued and running, in steps of the first size")
        self._bank = counter("ssd1b_bank", "Adapters asked for", tag_keys=("outcome",))
        self._evicted = counter("ssd1b_bank_evictions", "Adapters that made room for another")
        self._swap_s = histogram("ssd1b_swap_seconds", "From the decision on a slot to its being ready", SECONDS)
        self._encode_s = histogram("ssd1b_encode_seconds", "Text towers, and the VAE's encoder, for a request", SECONDS)
        self._decode_s = histogram("ssd1b_decode_seconds", "One call of the VAE's decoder", SECONDS)

    def step(self, seconds: float, rows: int, fill: float) -> None:
        """Count a step."""
        self._step_s.observe(seconds)
        self._step_rows.observe(rows)
        self._row_steps.inc(rows)
        self._fill.set(fill)

    def queue(self, requests: int, row_steps: float) -> None:
        """Say how much waits."""
        self._queue.set(requests)
        self._work.set(row_steps)

    def hit(self) -> None:
        """An adapter was in the bank."""
        self._bank.inc(tags={"outcome": "hit"})

    def miss(self, evicted: bool) -> None:
        """An adapter was not; another may have gone for it."""
        self._bank.inc(tags={"outcome": "miss"})
        if evicted:
            self._evicted.inc()

    def swap(self, seconds: float) -> None:
        """An adapter was put into a slot."""
        self._swap_s.observe(seconds)

    def encode(self, seconds: float) -> None:
        """Prompts were read."""
        self._encode_s.observe(seconds)

    def decode(self, seconds: float) -> None:
        """Pictures were decoded."""
        self._decode_s.observe(seconds)
