"""Rate limit: a token bucket for each address or person."""

import threading
import time
from collections.abc import Callable

_MOST_KEYS = 10_000  # remembered at once; the longest silent are forgotten


class Bucket:
    """Lets through ``burst`` requests of one key at once, and ``rate`` a second after that."""

    def __init__(
        self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._lock = threading.Lock()
        self._levels: dict[str, tuple[float, float]] = {}  # key: level, and when it was so

    def wait(self, key: str) -> float:
        """Take one request of ``key`` if there is one; else return the seconds until then."""
        with self._lock:
            level = self._level(key)
            if level < 1:
                return (1 - level) / self._rate
            self._levels.pop(key, None)  # the youngest stand last
            self._levels[key] = (level - 1, self._clock())
            if len(self._levels) > _MOST_KEYS:
                del self._levels[next(iter(self._levels))]
            return 0.0

    def _level(self, key: str) -> float:
        if key not in self._levels:
            return float(self._burst)
        level, when = self._levels[key]
        return min(float(self._burst), level + self._rate * (self._clock() - when))
