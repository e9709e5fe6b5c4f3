"""The population: who listens, where, on what devices, when they like to listen, and how their
subscriptions go.

Chronotypes: four groups of about equal size, early birds, working-hours listeners, evening listeners and
night owls
(Louail & Barthelemy, arXiv 1704.05815). Skipping by age: highest below twenty, lowest in the mid-thirties, a
bump near 48,
which is teenagers on their parents' accounts (Lamere, "The Skip", 2014).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from music_streaming.demo.catalogue import GENRES
from music_streaming.demo.rng import Floats, Ints, find, generator, normal, pick, running
from music_streaming.error import MusicError
from music_streaming.event import AGE_GROUPS, DEVICE_TYPES

# country: (share of listeners, share of iOS among phones, time zones with their shares)
COUNTRIES: dict[str, tuple[float, float, dict[str, float]]] = {
    "US": (24.0, 0.57, {"New_York": 0.47, "Chicago": 0.29, "Denver": 0.07, "Los_Angeles": 0.17}),
    "BR": (8.0, 0.18, {"Sao_Paulo": 0.93, "Manaus": 0.07}),
    "MX": (6.5, 0.22, {"Mexico_City": 0.88, "Tijuana": 0.12}),
    "CA": (3.0, 0.60, {"Toronto": 0.64, "Winnipeg": 0.08, "Edmonton": 0.14, "Vancouver": 0.14}),
    "AR": (2.2, 0.13, {"Argentina/Buenos_Aires": 1.0}),
    "CO": (1.8, 0.15, {"Bogota": 1.0}),
    "CL": (1.2, 0.22, {"Santiago": 1.0}),
    "GB": (7.0, 0.52, {"London": 1.0}),
    "DE": (6.5, 0.38, {"Berlin": 1.0}),
    "FR": (4.5, 0.36, {"Paris": 1.0}),
    "ES": (3.2, 0.24, {"Madrid": 0.95, "Canary": 0.05}),
    "IT": (3.2, 0.32, {"Rome": 1.0}),
    "NL": (2.2, 0.40, {"Amsterdam": 1.0}),
    "SE": (2.2, 0.58, {"Stockholm": 1.0}),
    "PL": (2.0, 0.14, {"Warsaw": 1.0}),
    "NO": (1.0, 0.64, {"Oslo": 1.0}),
    "CH": (1.0, 0.58, {"Zurich": 1.0}),
    "PT": (0.8, 0.28, {"Lisbon": 1.0}),
    "EE": (0.3, 0.36, {"Tallinn": 1.0}),
    "UA": (0.9, 0.25, {"Kyiv": 1.0}),
    "JP": (4.0, 0.66, {"Tokyo": 1.0}),
    "IN": (3.5, 0.05, {"Kolkata": 1.0}),
    "ID": (2.2, 0.11, {"Jakarta": 0.8, "Makassar": 0.2}),
    "KR": (1.6, 0.30, {"Seoul": 1.0}),
    "PH": (1.6, 0.13, {"Manila": 1.0}),
    "TR": (1.6, 0.17, {"Istanbul": 1.0}),
    "TW": (0.9, 0.50, {"Taipei": 1.0}),
    "SA": (0.7, 0.40, {"Riyadh": 1.0}),
    "AU": (2.8, 0.58, {"Sydney": 0.58, "Brisbane": 0.22, "Adelaide": 0.08, "Perth": 0.12}),
    "NZ": (0.6, 0.50, {"Auckland": 1.0}),
    "ZA": (0.9, 0.16, {"Johannesburg": 1.0}),
    "NG": (0.7, 0.10, {"Lagos": 1.0}),
    "EG": (0.6, 0.12, {"Cairo": 1.0}),
    "KE": (0.3, 0.06, {"Nairobi": 1.0}),
}
_AREAS = {
    "New_York Chicago Denver Los_Angeles Sao_Paulo Manaus Mexico_City Tijuana Toronto Winnipeg Edmonton "
    "Vancouver Argentina/Buenos_Aires Bogota Santiago": "America",
    "London Berlin Paris Madrid Rome Amsterdam Stockholm Warsaw Oslo Zurich Lisbon Tallinn Kyiv "
    "Istanbul": "Europe",
    "Canary": "Atlantic",
    "Tokyo Kolkata Jakarta Makassar Seoul Manila Taipei Riyadh": "Asia",
    "Sydney Brisbane Adelaide Perth": "Australia",
    "Auckland": "Pacific",
    "Johannesburg Lagos Cairo Nairobi": "Africa",
}
_AREA_OF = {city: area for cities, area in _AREAS.items() for city in cities.split()}
ZONES = [f"{_AREA_OF[city]}/{city}" for *_, cities in COUNTRIES.values() for city in cities]

_AGE_EDGES = np.array([18, 25, 35, 45, 55, 65])
_AGE_CURVE = (
    (13, 0.4),
    (16, 1.6),
    (21, 2.6),
    (27, 2.6),
    (34, 2.0),
    (42, 1.4),
    (50, 1.1),
    (60, 0.7),
    (70, 0.35),
    (80, 0.08),
)
_SKIP_CURVE = (
    (13, 1.28),
    (19, 1.2),
    (24, 1.06),
    (30, 0.9),
    (35, 0.8),
    (41, 0.9),
    (48, 1.06),
    (55, 0.93),
    (64, 0.82),
    (80, 0.78),
)

_OWNED = np.array([1.0, 0.25, 0.42, 0.33, 0.32, 0.28, 0.2, 0.13])
# Systems of each device type: (os, player, share). Phones and tablets go by country instead.
_SYSTEMS: dict[str, tuple[tuple[str, str, float], ...]] = {
    "mobile": (("iOS", "phone app", 0.0), ("Android", "phone app", 0.0)),
    "tablet": (("iPadOS", "tablet app", 0.0), ("Android", "tablet app", 0.0)),
    "desktop": (
        ("Windows", "desktop app", 0.63),
        ("macOS", "desktop app", 0.29),
        ("Linux", "desktop app", 0.08),
    ),
    "web": (("Windows", "web player", 0.64), ("macOS", "web player", 0.22), ("ChromeOS", "web player", 0.14)),
    "speaker": (("Fire OS", "cast", 0.5), ("Cast OS", "cast", 0.32), ("Linux", "cast", 0.18)),
    "tv": (
        ("Tizen", "tv app", 0.36),
        ("Android TV", "tv app", 0.34),
        ("webOS", "tv app", 0.2),
        ("tvOS", "tv app", 0.1),
    ),
    "car": (("CarPlay", "car app", 0.55), ("Android Auto", "car app", 0.45)),
    "console": (("PlayStation", "console app", 0.65), ("Xbox", "console app", 0.35)),
}
DEVICES = tuple((kind, os, player) for kind in DEVICE_TYPES for os, player, _ in _SYSTEMS[kind])

_FREE, _PAYING, _GONE = 0, 1, 2
_DAYS_TO_MONDAY = 4  # 1970-01-05
_FIRST_WEEK = 2609  # the week of 2020-01-06: lives are followed from there

CHRONOTYPES = ("early bird", "working hours", "evening", "night owl")
SESSIONS_A_DAY = 1.75


@dataclass
class Listeners:
    """Listeners as columns, all of length `count`.

    `sessions` is the mean sessions a day (log-normal activity), `skipping` multiplies the chance of a
    skip (age and
    attitude), `own` is the share of plays from one's own history, `devices` holds for each device type
    the index into
    DEVICES or -1, `taste` the three favourite genres.
    """

    seed: int
    country: Ints
    zone: Ints
    age: Ints
    age_group: Ints
    chronotype: Ints
    activity: Floats
    sessions: Floats
    skipping: Floats
    own: Floats
    taste: Ints
    devices: Ints
    plan: Ints
    user_ids: list[str]
    fragments: list[str]
    _life: tuple[int, Ints, Floats] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.user_ids)

    def subscriptions(self, day: int) -> Ints:
        """Each listener's index into SUBSCRIPTION_TYPES in the week of `day` (days since 1970); -1: has left.

        A Markov chain with steps of a week: adverts heard (free listeners who listen much hear most)
        push from free to
        paying, bad moods out of the service, and some come back.
        """
        week = max((day - _DAYS_TO_MONDAY) // 7, _FIRST_WEEK)
        if self._life is None or self._life[0] > week:
            self._life = (_FIRST_WEEK, *self._first_states())
        at, state, mood = self._life
        while at < week:
            at += 1
            state, mood = self._step(at, state, mood)
        self._life = (at, state, mood)
        subscriptions = np.where(state == _GONE, -1, np.where(state == _FREE, 0, self.plan))
        subscriptions[0] = max(subscriptions[0], 0)  # One is always active, in the smallest world too.
        return subscriptions

    def _first_states(self) -> tuple[Ints, Floats]:
        rng = generator(self.seed, 3)
        return pick(rng, running(np.array([0.5, 0.42, 0.08])), len(self)), normal(rng, len(self))

    def _step(self, week: int, state: Ints, mood: Floats) -> tuple[Ints, Floats]:
        rng = generator(self.seed, 4, week)
        mood = 0.9 * mood + 0.436 * normal(rng, len(self))
        draw = rng.random(len(self))
        adverts = np.minimum(self.activity, 3.0)
        bad = np.where(mood < -1.0, 3.0, 1.0)
        leave = np.where(state == _FREE, 0.004, 0.002) * bad
        pay = np.where(mood > 0, 0.006, 0.002) * (0.5 + adverts)
        stepped = state.copy()
        stepped[(state == _FREE) & (draw < leave + pay)] = _PAYING
        stepped[(state == _PAYING) & (draw < leave + 0.006 * bad)] = _FREE
        stepped[(state != _GONE) & (draw < leave)] = _GONE
        stepped[(state == _GONE) & (draw < 0.05)] = _FREE
        return stepped, mood


def build(seed: int, count: int) -> Listeners:
    """A population of `count` listeners. Raises MusicError below one."""
    if count < 1:
        remedy = "correct producer.listeners"
        raise MusicError.of("listeners", found=str(count), wanted="at least 1", remedy=remedy)
    rng = generator(seed, 2)
    country, zone = _places(rng, count)
    age = 13 + pick(rng, running(_curve(_AGE_CURVE)), count)
    age_group = np.searchsorted(_AGE_EDGES, age, side="right")
    activity = np.minimum(np.round(np.exp(0.9 * normal(rng, count) - 0.405), 6), 7.0)
    attitude = np.round(np.exp(0.3 * normal(rng, count) - 0.045), 6)
    genres = running(np.array([share for share, _ in GENRES.values()]))
    student = (rng.random(count) < np.array([0.1, 0.55, 0.08, 0, 0, 0, 0])[age_group]).astype(np.int64)
    family = rng.random(count) < np.array([0.7, 0.22, 0.25, 0.4, 0.4, 0.3, 0.25])[age_group]
    user_ids = [f"listener-{number:06d}" for number in range(count)]
    codes = list(COUNTRIES)
    return Listeners(
        seed=seed,
        country=country,
        zone=zone,
        age=age,
        age_group=age_group,
        chronotype=rng.integers(0, len(CHRONOTYPES), count),
        activity=activity,
        sessions=SESSIONS_A_DAY * activity,
        skipping=_curve(_SKIP_CURVE)[age - 13] * attitude,
        own=0.6 + 0.25 * rng.random(count),
        taste=np.stack([pick(rng, genres, count) for _ in range(3)], axis=1),
        devices=_devices(rng, country),
        plan=np.where(student == 1, 3, np.where(family, 2, 1)),
        user_ids=user_ids,
        fragments=[
            f'"age_group":"{AGE_GROUPS[group]}","country":"{codes[land]}"'
            for group, land in zip(age_group.tolist(), country.tolist(), strict=True)
        ],
    )


def _places(rng: np.random.Generator, count: int) -> tuple[Ints, Ints]:
    """Country and time zone of each listener (indexes into COUNTRIES and ZONES)."""
    shares, lands = [], []
    for land, (share, _, zones) in enumerate(COUNTRIES.values()):
        for part in zones.values():
            shares.append(share * part)
            lands.append(land)
    zone = pick(rng, running(np.array(shares)), count)
    return np.array(lands)[zone], zone


def _curve(points: tuple[tuple[int, float], ...]) -> Floats:
    """Values for the ages 13 to 80 on the straight lines between `points`."""
    ages, values = zip(*points, strict=True)
    curve: Floats = np.round(np.interp(np.arange(13, 81), ages, values), 6)
    return curve


def _devices(rng: np.random.Generator, country: Ints) -> Ints:
    """The devices that each listener owns: index into DEVICES by device type, -1 where none."""
    count = len(country)
    apple = np.array([share for _, share, _ in COUNTRIES.values()])[country]
    owned = np.full((count, len(DEVICE_TYPES)), -1, dtype=np.int64)
    first = 0
    for number, kind in enumerate(DEVICE_TYPES):
        has, system = rng.random(count) < _OWNED[number], rng.random(count)
        if kind in ("mobile", "tablet"):
            # Tablets are Apple's more often than phones are.
            variant = (system >= (apple if kind == "mobile" else 0.3 + 0.6 * apple)).astype(np.int64)
        else:
            variant = find(running(np.array([share for *_, share in _SYSTEMS[kind]])), system)
        owned[:, number] = np.where(has, first + variant, -1)
        first += len(_SYSTEMS[kind])
    return owned
