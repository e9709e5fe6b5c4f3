"""Random numbers that are the same on every machine.

Only PCG64 bits, their 53-bit uniforms and integer hashes are drawn; numpy's `normal`, `poisson` or `uniform`
call libm and may be compiled with fused multiply-add on arm64, so that the last bit differs. What needs a
curve is read from a table that was rounded when it was built.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Words = NDArray[np.uint64]

_STEPS = 4096
_NORMAL = np.array([round(NormalDist().inv_cdf((step + 0.5) / _STEPS), 6) for step in range(_STEPS)])
_GOLDEN, _MIX1, _MIX2 = (
    np.uint64(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def generator(*key: int) -> np.random.Generator:
    """A generator of its own for each `key`, e.g. (seed, what for, which hour); all numbers >= 0."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def pick(rng: np.random.Generator, cumulative: Floats, count: int) -> Ints:
    """`count` indexes drawn with the weights whose running sum is `cumulative`."""
    return find(cumulative, rng.random(count) * cumulative[-1])


def find(cumulative: Floats, positions: Floats) -> Ints:
    """The index in whose share each position of [0, last) lies; shares of width 0 are never found."""
    found = np.searchsorted(cumulative, positions, side="right")
    return np.minimum(found, len(cumulative) - 1)


def running(weights: Floats) -> Floats:
    """Running sum of `weights`, rounded so that libm's last bit cannot matter."""
    return np.cumsum(np.round(weights, 12))


def normal(rng: np.random.Generator, count: int) -> Floats:
    """`count` standard normal values, in 4096 steps, at most 3.7 from 0."""
    return _NORMAL[rng.integers(0, _STEPS, count)]


def poisson(rng: np.random.Generator, means: Floats, most: int) -> Ints:
    """A Poisson count for each mean, at most `most`."""
    draws: Floats = rng.random(len(means))
    term: Floats = np.round(np.exp(-means), 12).astype(np.float64)
    reached = term.copy()
    counts = np.zeros(len(means), dtype=np.int64)
    for count in range(1, most + 1):
        above = draws >= reached
        if not above.any():
            break
        counts[above] = count
        term = term * means / count
        reached = reached + term
    return counts


def log_uniform(rng: np.random.Generator, low: int, high: int, count: int) -> Ints:
    """Whole numbers from `low` to `high`, each factor of ten equally likely."""
    ladder = np.round(low * (high / low) ** (np.arange(_STEPS) / (_STEPS - 1))).astype(np.int64)
    return ladder[rng.integers(0, _STEPS, count)]


def scatter(*parts: Ints | int) -> Words:
    """A 64-bit hash of whole numbers, element by element (splitmix64): a repeatable random number."""
    state = np.zeros(1, dtype=np.uint64)
    for part in parts:
        state = (state ^ np.asarray(part).astype(np.uint64)) + _GOLDEN
        state = (state ^ (state >> np.uint64(30))) * _MIX1
        state = (state ^ (state >> np.uint64(27))) * _MIX2
        state = state ^ (state >> np.uint64(31))
    return state


def halves(words: Words) -> tuple[Floats, Floats]:
    """Two independent uniforms of [0, 1) from each hash."""
    scale = 1.0 / (1 << 32)
    upper, lower = words >> np.uint64(32), words & np.uint64(0xFFFFFFFF)
    return upper.astype(np.float64) * scale, lower.astype(np.float64) * scale
