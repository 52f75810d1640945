"""Which rows run next. Pure bookkeeping: whoever calls holds the lock and says what time it is."""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Generic

from service.batching.jobs import Entry, Full, In, Job, Limits, Out


class Backlog(Generic[In, Out]):
    """The waiting rows, by length. Choosing a batch costs by different lengths, not by rows."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._shelves: dict[int, deque[Entry[In, Out]]] = {}  # length -> rows, the oldest first
        self._of_client: Counter[str] = Counter()  # rows that wait or are expected
        self.rows = 0
        self.reserved = 0  # rows that are expected: places are kept for them
        self.tokens = 0
        self.dropped = 0

    def refusal(self, rows: Sequence[In], client: str | None) -> Full | None:
        """Why these rows may not enter now; None if they may."""
        return self.refusal_of_rows(len(rows), client) or self._refusal_of_tokens(sum(map(len, rows)))

    def refusal_of_rows(self, rows: int, client: str | None) -> Full | None:
        """The same, before their tokens are known."""
        if self.rows + self.reserved + rows > self._limits.queued:
            return Full.ROWS
        if client is not None and self._of_client[client] + rows > self._limits.queued_of_one:
            return Full.CLIENT
        return None

    def reserve(self, rows: int, client: str | None) -> None:
        """Keep places for rows that are being tokenised; below zero, give them up."""
        self.reserved += rows
        self._count(client, rows)

    def add(self, job: Job[In, Out], rows: Sequence[In]) -> None:
        """Let all rows wait."""
        for index, row in enumerate(rows):
            entry = Entry(job, index, row)
            shelf = self._shelves.get(entry.length)
            if shelf is None:
                shelf = self._shelves[entry.length] = deque()
            shelf.append(entry)
            self.tokens += entry.length
        self.rows += len(rows)
        self._count(job.client, len(rows))

    def take(self, now: float) -> list[Entry[In, Out]]:
        """The next batch: the oldest row first, with rows of nearest length. Empty only if nobody waits."""
        oldest = self._oldest(now)
        if oldest is None:
            return []
        nearest = sorted(self._shelves, key=lambda length: (abs(length - oldest.length), length))
        batch: list[Entry[In, Out]] = []
        overdue = now - self._limits.age_s
        longest = 0
        if oldest.job.admitted <= overdue:
            longest = self._fill(batch, nearest, overdue, longest, now)
        self._fill(batch, nearest, now, longest, now)
        return batch

    def sweep(self, now: float) -> None:
        """Forget all rows whose callers wait no more, wherever they stand."""
        for length in list(self._shelves):
            shelf = self._shelves[length]
            kept = deque(entry for entry in shelf if not entry.job.over(now))
            if len(kept) == len(shelf):
                continue
            for entry in shelf:
                if entry.job.over(now):
                    self._leave(entry)
                    self.dropped += 1
            if kept:
                self._shelves[length] = kept
            else:
                del self._shelves[length]

    def empty(self) -> list[Entry[In, Out]]:
        """Give up all rows."""
        entries = [entry for shelf in self._shelves.values() for entry in shelf]
        self._shelves.clear()
        self._of_client.clear()
        self.rows = self.tokens = 0
        return entries

    def _refusal_of_tokens(self, tokens: int) -> Full | None:
        if self.tokens and self.tokens + tokens > self._limits.queued_tokens:
            return Full.TOKENS
        return None

    def _oldest(self, now: float) -> Entry[In, Out] | None:
        for length in list(self._shelves):
            shelf = self._shelves[length]
            while shelf and shelf[0].job.over(now):
                self._drop(shelf)
            if not shelf:
                del self._shelves[length]
        heads = [shelf[0] for shelf in self._shelves.values()]
        # Of one request's rows the longest first: taken from the end, lengths leave no gaps that cost padding later.
        return min(heads, key=lambda entry: (entry.job.admitted, -entry.length), default=None)

    def _fill(self, batch: list[Entry[In, Out]], nearest: list[int], until: float, longest: int, now: float) -> int:
        """Add rows admitted until then, shelf by shelf, while the budget lasts. Returns the longest."""
        for length in nearest:
            shelf = self._shelves[length]
            widest = max(longest, length)
            most = self._most(widest, far=abs(length - nearest[0]) > nearest[0] * self._limits.spread)
            while len(batch) < most and shelf and shelf[0].job.admitted <= until:
                if shelf[0].job.over(now):
                    self._drop(shelf)
                    continue
                entry = shelf.popleft()
                self._leave(entry)
                batch.append(entry)
                longest = widest
        return longest

    def _most(self, widest: int, far: bool) -> int:
        rows = min(self._limits.rows, self._limits.few) if far else self._limits.rows
        return min(rows, max(self._limits.tokens // widest, 1))

    def _drop(self, shelf: "deque[Entry[In, Out]]") -> None:
        self._leave(shelf.popleft())
        self.dropped += 1

    def _leave(self, entry: Entry[In, Out]) -> None:
        self.rows -= 1
        self.tokens -= entry.length
        self._count(entry.job.client, -1)

    def _count(self, client: str | None, rows: int) -> None:
        if client is None:
            return
        self._of_client[client] += rows
        if self._of_client[client] <= 0:
            del self._of_client[client]
