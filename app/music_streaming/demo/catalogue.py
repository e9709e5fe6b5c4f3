"""The catalogue: artists, albums and songs, with names in several scripts and a popularity that looks like
the real one.

Popularity is a bent power law: an artist's share falls with rank to the power -0.54 over the first hundred
and -0.93 up to
rank 2,500 (Krueger, "Rockonomics", on artist revenue), faster beyond; the least popular songs are never asked
for (Luminate,
2023 year-end report: about a quarter of all tracks had no play in the year).
"""

from __future__ import annotations

import json
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from faker import Faker
from faker.config import AVAILABLE_LOCALES

from music_streaming.demo.rng import Floats, Ints, generator, normal, pick, running
from music_streaming.error import MusicError

LOCALES = (
    "en_US",
    "en_GB",
    "es_MX",
    "pt_BR",
    "de_DE",
    "fr_FR",
    "ja_JP",
    "ko_KR",
    "zh_TW",
    "hi_IN",
    "ar_EG",
    "ru_RU",
)

# genre: (share of artists, usual song in seconds)
GENRES: dict[str, tuple[float, int]] = {
    "pop": (0.19, 200),
    "hip hop": (0.16, 195),
    "rock": (0.13, 235),
    "electronic": (0.10, 225),
    "latin": (0.09, 205),
    "r&b": (0.07, 210),
    "indie": (0.07, 220),
    "country": (0.05, 205),
    "k-pop": (0.04, 195),
    "metal": (0.03, 265),
    "jazz": (0.03, 290),
    "classical": (0.02, 330),
    "folk": (0.01, 225),
    "soundtrack": (0.01, 185),
}
# Names that real catalogues hold and that break careless software: (artist, title).
AWKWARD = (
    ("👩‍👩‍👧‍👦 Family Band", "🎵🎶"),
    ("مرحبا", "ليلة بلا نهاية (Night)"),
    ("Ame\u0301lie Cover Crew", "Cafe\u0301 du Nord"),
    ("Robert'); DROP--", "=1+1"),
    ("What? & Why=#1", "-"),
    ('"Quoted" \\ Band', "Tab\tand / slash"),
)
CYCLE_WEEKS = 104
FRESH_DAYS = 28
ANNOUNCED_DAYS = 91
_FIRST_FRIDAY = 4 * 7 + 1  # 1970-01-30, days since 1970-01-01 (a Thursday)
# Songs stay below the watermark's ten minutes: a play that is reported at its end is not late for that alone.
_SHORTEST, _LONGEST = 60_000, 539_000
# Share of songs that nobody asks for; the tail of the curve leaves some more unplayed in any fortnight.
_UNASKED = 0.2
_NO_SPACES = {"ja", "zh", "th"}
_FAMILY_FIRST = {"ja", "ko", "zh", "hu"}
_HOMES = {"k-pop": ("ko",), "latin": ("es", "pt"), "country": ("en",)}  # languages that a genre is sung in


@dataclass(frozen=True)
class Vocabulary:
    """What names of one locale are made of."""

    firsts: Sequence[str]
    lasts: Sequence[str]
    words: Sequence[str]
    space: str
    family_first: bool
    english: bool

    def person(self, first: str, last: str) -> str:
        return f"{last}{self.space}{first}" if self.family_first else f"{first}{self.space}{last}"


@dataclass(frozen=True)
class Catalogue:
    """Songs as columns, ordered by genre, artist and album: a genre and an artist are ranges of songs.

    `weight` is a song's share of all plays; `fragments` are the parts of the event's JSON that depend on
    the song only.
    """

    titles: list[str]
    song_ids: list[str]
    artists: list[str]
    albums: list[str]
    artist: Ints
    album: Ints
    genre: Ints
    duration_ms: Ints
    weight: Floats
    cumulative: Floats
    artist_range: Ints  # first and one past the last song of each song's artist, shape (songs, 2)
    genre_range: Ints  # the same for each genre, shape (genres, 2)
    album_release: (
        Ints  # days since 1970: date of an old album; number of the Friday in the cycle for a current one
    )
    album_current: np.ndarray
    fragments: list[str]

    def __len__(self) -> int:
        return len(self.titles)

    def age_days(self, day: int) -> Ints:
        """Days since each song's release, on `day` (days since 1970); negative: announced, not out yet.

        Each Friday some of the current albums come out. The release calendar repeats every 104 weeks, so that
        something is
        always new on a board that runs for years; an album is away for the 13 weeks before it comes (again).
        """
        period = 7 * CYCLE_WEEKS
        first = _FIRST_FRIDAY + 7 * self.album_release
        last = first + (day + ANNOUNCED_DAYS - first) // period * period
        return (day - np.where(self.album_current, last, self.album_release))[self.album]


def vocabulary(locale: str, seed: int) -> Vocabulary:
    """Names and words of `locale` from Faker, the same for the same seed.

    One Faker per locale with a seed of its own: a proxy over several locales draws the locale from
    another source, and two
    locales that fall back to the same provider would repeat each other's names. Weights are off, since
    they are added up
    in the provider's dict order. Raises MusicError for a locale that Faker does not have.
    """
    if locale not in AVAILABLE_LOCALES:
        wanted = "one that Faker has, such as en_US or ja_JP"
        raise MusicError.of("locale", found=locale, wanted=wanted, remedy="correct producer.locales")
    language = locale.partition("_")[0]
    full = {"ar": "ar_AA", "en": "en_US"}.get(
        language, locale
    )  # where the language's words are, if not in the locale
    people = Faker(full if language == "ar" else locale, use_weighting=False)
    words = people if full == locale or language == "ar" else Faker(full, use_weighting=False)
    own_seed = seed * 1_000_003 + zlib.crc32(locale.encode())
    people.seed_instance(own_seed)
    firsts = _draw(people.first_name, 240)
    lasts = _draw(people.last_name, 240)
    words.seed_instance(own_seed + 1)
    has_words = any(provider.__module__.endswith(f"lorem.{full}") for provider in words.get_providers())
    return Vocabulary(
        firsts,
        lasts,
        _draw(words.word, 480) if has_words else firsts,
        "" if language in _NO_SPACES else " ",
        language in _FAMILY_FIRST,
        language == "en",
    )


def _draw(source: Callable[[], str], count: int) -> list[str]:
    drawn = (unicodedata.normalize("NFC", source()).strip() for _ in range(count))
    return [word[:1].upper() + word[1:] for word in dict.fromkeys(drawn) if word]


def build(seed: int, locales: Sequence[str], artists: int) -> Catalogue:
    """A catalogue of `artists` artists, about eight songs each; MusicError for what it cannot build."""
    if artists < 100:
        wanted = "at least 100, where the curve of popularity bends"
        raise MusicError.of("artists", found=str(artists), wanted=wanted, remedy="correct producer.artists")
    rng = generator(seed, 1)
    vocabularies = [vocabulary(locale, seed) for locale in locales]
    shares = running(np.array([share for share, _ in GENRES.values()]))
    by_rank = pick(rng, shares, artists)
    order = np.argsort(by_rank, kind="stable")  # artists by genre; `order` holds their ranks
    artist_genre = by_rank[order]
    artist_weight = _bent_law(artists)[order]
    artist_locale = _sung_in(locales, artist_genre, rng.integers(0, 1 << 31, artists))
    sung_in = [vocabularies[index] for index in artist_locale.tolist()]
    names = _artist_names(rng, sung_in, order)

    album_artist, tracks, release, current = _albums(rng, order)
    album = np.repeat(np.arange(len(tracks)), tracks)
    artist = album_artist[album]
    genre = artist_genre[artist]
    songs = len(album)
    usual = np.array([seconds for _, seconds in GENRES.values()])[genre]
    spread = np.round(np.exp(0.24 * normal(rng, songs)), 6)
    durations = (usual * spread * 1000).astype(np.int64) + rng.integers(0, 1000, songs)

    starts = np.searchsorted(artist, np.arange(artists + 1))
    weight = _song_weights(rng, artist, starts, artist_weight)
    titles, album_titles = _titles(rng, artist, album, sung_in)
    _place_awkward(names, titles, order, starts)
    catalogue = Catalogue(
        titles=titles,
        song_ids=[f"song-{number:06d}" for number in range(songs)],
        artists=names,
        albums=album_titles,
        artist=artist,
        album=album,
        genre=genre,
        duration_ms=np.clip(durations, _SHORTEST, _LONGEST),
        weight=weight,
        cumulative=running(weight),
        artist_range=np.stack([starts[artist], starts[artist + 1]], axis=1),
        genre_range=np.stack(
            [np.searchsorted(genre, np.arange(len(GENRES)) + step) for step in (0, 1)], axis=1
        ),
        album_release=release,
        album_current=current,
        fragments=[],
    )
    catalogue.fragments.extend(_fragments(catalogue))
    return catalogue


def _albums(rng: np.random.Generator, order: Ints) -> tuple[Ints, Ints, Ints, np.ndarray]:
    """Of each album its artist, number of tracks, release, and whether that is a week of the cycle."""
    artists = len(order)
    popular = order < artists // 10
    albums_of = 1 + rng.integers(0, 2, artists) + np.where(popular, rng.integers(0, 3, artists), 0)
    album_artist = np.repeat(np.arange(artists), albums_of)
    albums = len(album_artist)
    tracks = np.array([1, 1, 4, 6, 9, 10])[rng.integers(0, 6, albums)]
    newest = np.append(album_artist[1:] != album_artist[:-1], True)
    current = newest & (rng.random(albums) < 0.2)
    release = np.where(current, rng.integers(0, CYCLE_WEEKS, albums), rng.integers(-1_500, 18_262, albums))
    return album_artist, tracks, release, current


def _sung_in(locales: Sequence[str], artist_genre: Ints, dice: Ints) -> Ints:
    """Which of `locales` each artist is at home in."""
    chosen = np.empty(len(dice), dtype=np.int64)
    for number, genre in enumerate(GENRES):
        home = [index for index, name in enumerate(locales) if name.startswith(_HOMES.get(genre, ("",)))]
        of_genre = artist_genre == number
        choice = np.array(home or range(len(locales)))
        chosen[of_genre] = choice[dice[of_genre] % len(choice)]
    return chosen


def _bent_law(artists: int) -> Floats:
    """Share of each artist by rank (the docstring of this file names the slopes)."""
    ranks = np.arange(1, artists + 1, dtype=np.float64)
    weights = ranks**-0.54
    weights[100:] = 100**-0.54 * (ranks[100:] / 100) ** -0.93
    weights[2500:] = 100**-0.54 * 25**-0.93 * (ranks[2500:] / 2500) ** -1.0
    shares: Floats = weights / weights.sum()
    return shares


def _song_weights(rng: np.random.Generator, artist: Ints, starts: Ints, artist_weight: Floats) -> Floats:
    """Shares of songs: within an artist they fall with the song's place; the least of all songs get none."""
    songs = len(artist)
    shuffled = np.lexsort((rng.random(songs), artist))
    place = np.empty(songs)
    place[shuffled] = np.arange(songs) - starts[artist] + 1
    raw = place**-0.7
    totals = np.add.reduceat(raw, starts[:-1])
    weight = raw / totals[artist] * artist_weight[artist]
    unasked = np.argsort(np.round(weight, 12), kind="stable")[: int(songs * _UNASKED)]
    weight[unasked] = 0.0
    shares: Floats = np.round(weight / weight.sum(), 12)
    return shares


def _artist_names(rng: np.random.Generator, vocabularies: Sequence[Vocabulary], order: Ints) -> list[str]:
    taken: set[str] = set()
    names = []
    dice = rng.integers(0, 1 << 31, (len(order), 4)).tolist()
    for vocabulary_, (kind, first, second, third) in zip(vocabularies, dice, strict=True):
        one = vocabulary_.firsts[first % len(vocabulary_.firsts)]
        last = vocabulary_.lasts[second % len(vocabulary_.lasts)]
        word = vocabulary_.words[third % len(vocabulary_.words)]
        other = vocabulary_.words[second % len(vocabulary_.words)]
        space = vocabulary_.space
        match kind % 10:
            case 0 if vocabulary_.english:
                name = f"The {word} {other}"
            case 1:
                name = f"{word}{space}{other}"
            case 2:
                name = f"{one} & {other}"
            case _:
                name = vocabulary_.person(one, last)
        names.append(_unique(name, taken))
    return names


def _titles(
    rng: np.random.Generator, artist: Ints, album: Ints, vocabularies: Sequence[Vocabulary]
) -> tuple[list[str], list[str]]:
    """Titles of songs, unique for an artist, and of albums, many named after a song."""
    titles: list[str] = []
    album_titles: list[str] = []
    taken: set[str] = set()
    before = -1
    dice = rng.integers(0, 1 << 31, (len(artist), 3)).tolist()
    for artist_, album_, (kind, first, second) in zip(artist.tolist(), album.tolist(), dice, strict=True):
        if artist_ != before:
            taken, before = set(), artist_
        vocabulary_ = vocabularies[artist_]
        word = vocabulary_.words[first % len(vocabulary_.words)]
        other = vocabulary_.words[second % len(vocabulary_.words)]
        space = vocabulary_.space
        match kind % 12:
            case 0 | 1 | 2:
                title = word
            case 3 if vocabulary_.english:
                title = f"{word} of {other}"
            case 4 if vocabulary_.english:
                title = f"No {word}"
            case 5:
                title = f"{word} (Live)"
            case 6:
                title = vocabulary_.firsts[second % len(vocabulary_.firsts)]
            case _:
                title = f"{word}{space}{other}"
        titles.append(_unique(title, taken))
        if album_ == len(album_titles):
            album_titles.append(title if kind % 3 else f"{other}{space}{word}")
    return titles, album_titles


def _unique(name: str, taken: set[str]) -> str:
    found, number = name, 2
    while found in taken:
        found, number = f"{name} {number}", number + 1
    taken.add(found)
    return found


def _place_awkward(names: list[str], titles: list[str], order: Ints, starts: Ints) -> None:
    """Give the awkward names to the artists of ranks 60, 65, ...: played every day, seldom on top."""
    positions = np.argsort(order, kind="stable")
    for number, (artist, title) in enumerate(AWKWARD):
        where = int(positions[60 + 5 * number])
        names[where] = unicodedata.normalize("NFC", artist)
        titles[int(starts[where])] = unicodedata.normalize("NFC", title)


def _fragments(catalogue: Catalogue) -> list[str]:
    text = json.JSONEncoder(ensure_ascii=False).encode
    artists = [text(name) for name in catalogue.artists]
    albums = [text(name) for name in catalogue.albums]
    genres = [text(name) for name in GENRES]
    columns = (catalogue.artist, catalogue.album, catalogue.genre, catalogue.duration_ms)
    rows = zip(catalogue.song_ids, catalogue.titles, *(column.tolist() for column in columns), strict=True)
    return [
        f'"song_id":"{song_id}","title":{text(title)},"artist":{artists[artist]},"album":{albums[album]},'
        f'"genre":{genres[genre]},"duration_ms":{duration}'
        for song_id, title, artist, album, genre, duration in rows
    ]
