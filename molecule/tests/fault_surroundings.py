"""Faults of what is around the services: the plug, the disk, the network, the clock, the packages."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from conftest import UNITS, Board, wait_for
from fault_bench import ACCOUNT, FLUSH_MS, Apply, Bench
from tail import cut_tail

FAKETIME = "/usr/lib/*/faketime/libfaketime.so.1"


def power_cut(bench: Bench, _chance: random.Random) -> None:
    _molecule_board("power-cut", bench.board.name)
    _molecule_board("power-on", bench.board.name)


def power_cut_with_tail(bench: Bench, _chance: random.Random) -> set[str]:
    """The same, and what the broker appended in its last second had not reached the disk.

    How much of that second there is depends on the load; none of it need have been written.
    """
    _molecule_board("power-cut", bench.board.name)
    cache = Path(os.environ.get("MUSIC_CACHE", Path.home() / ".cache/music-streaming"))
    taken = cut_tail(
        cache / "boards" / bench.board.name / "root/var/lib/music/kafka", "stream_events", FLUSH_MS
    )
    _molecule_board("power-on", bench.board.name)
    return taken


def _molecule_board(verb: str, name: str) -> None:
    subprocess.run([Board.script, verb, name], check=True, capture_output=True, timeout=300)


DATA, IMAGE = "/var/lib/music", "/var/tmp/music-disk.img"
STOP, START = f"systemctl stop {' '.join(UNITS)} music.target", "systemctl start --no-block music.target"
# A simulated board has no devices but those that are made; which loop is free, the kernel says, and it is that of all boards.
LOOPS = (
    "command -v mkfs.ext4 >/dev/null || apt-get install -y -q e2fsprogs >/dev/null;"
    " [ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237;"
    " for n in 0 1 2 3 4 5 6 7; do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done"
)


@contextlib.contextmanager
def small_disk(bench: Bench, image: str, options: str) -> Iterator[None]:
    """Have all data on a small disk of its own meanwhile, in the file `image`, mounted with these options."""
    whole = f"{DATA}.whole"
    bench.root(
        f"set -e; {LOOPS}; truncate -s $(($(du -sm {DATA} | cut -f1) + 500))M {image}; mkfs.ext4 -q -m 0 {image}"
    )
    try:
        bench.root(
            f"set -e; {STOP}; mv {DATA} {whole}; mkdir {DATA}; mount -o {options} {image} {DATA};"
            # What is copied is old, and no fault is to take it.
            f" cp -a {whole}/. {DATA}/; sync; {START}"
        )
        bench.wait_recovered()
        yield
        bench.wait_recovered()
        bench.settle()
    finally:
        bench.root(
            f"set -e; {STOP}; if mountpoint -q {DATA}; then rm -rf {whole}; mkdir {whole}; cp -a {DATA}/. {whole}/;"
            f" rm -rf {whole}/lost+found; umount {DATA}; fi; if [ -e {whole} ]; then rmdir {DATA}; mv {whole} {DATA}; fi; rm {image}; {START}"
        )


def disk_full(bench: Bench, _chance: random.Random) -> None:
    """The disk is filled up under load and freed again."""
    with small_disk(bench, IMAGE, "loop"):
        bench.root(
            f"free=$(df --output=avail -B1 {DATA} | tail -n 1); fallocate -l $free {DATA}/filler"
            f" || dd if=/dev/zero of={DATA}/filler bs=1M status=none; sleep 40; df {DATA} >&2; rm {DATA}/filler",
            check=False,
        )


def mount_anew(image: str, options: str) -> str:
    """What a reboot does: stop, check, mount. The loop device goes with the mount, so it is the image that is checked."""
    return f"{STOP}; umount {DATA} || exit 1; e2fsck -fy {image} >&2; mount -o {options} {image} {DATA} || exit 1; {START}"


def unwritten(bench: Bench, since: float) -> list[str]:
    """Plays that were acknowledged from just before `since`, the board's time, on: none need have reached the disk."""
    seen = bench.board.script_on_board("fault_rows.py", ACCOUNT, str(since - 5 * FLUSH_MS / 1000))
    return list(seen["ids"])


def disk_read_only(bench: Bench, _chance: random.Random) -> list[str]:
    """The disk turns read-only, as ext4 does after an error, until it is checked and mounted anew."""
    options = "loop,errors=remount-ro"
    with small_disk(bench, IMAGE, options):
        began = float(bench.root("date +%s.%N"))
        name = Path(bench.root(f"findmnt --noheadings --output SOURCE {DATA}").strip()).name
        # A simulated board does not see it; the kernel is the same.
        Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("fault", encoding="ascii")
        bench.root(f"sleep 30; ! touch {DATA}/written 2>/dev/null || {{ echo not read-only >&2; exit 1; }}")
        taken = unwritten(bench, began)
        bench.root(mount_anew(IMAGE, options))
    return taken


def disk_errors(bench: Bench, _chance: random.Random) -> list[str]:
    """For 20 s each write of a new block fails when it is written back: the disk's own image lies on one that is full."""
    beneath, options = "/var/tmp/music-beneath", "loop,errors=continue"
    image = f"{beneath}/disk.img"
    try:
        bench.root(
            f"set -e; {LOOPS}; mkdir -p {beneath}; truncate -s $(($(du -sm {DATA} | cut -f1) + 300))M {beneath}.img;"
            f" mkfs.ext4 -q -m 0 {beneath}.img; mount -o loop {beneath}.img {beneath}"
        )
        with small_disk(bench, image, options):
            began = float(bench.root("date +%s.%N"))
            # The last blocks are too few for fallocate.
            bench.root(
                f"fallocate -l $(df --output=avail -B1 {beneath} | tail -n 1) {beneath}/most;"
                f" dd if=/dev/zero of={beneath}/rest bs=4k status=none; sleep 20;"
                f" ! dd if=/dev/zero of={DATA}/written bs=1M count=20 conv=fsync status=none"
                " || { echo no write has failed >&2; exit 1; }",
            )
            taken = unwritten(bench, began)
            bench.root(
                f"rm -f {beneath}/most {beneath}/rest; {mount_anew(image, options)}; rm -f {DATA}/written"
            )
        return taken
    finally:
        bench.root(f"umount {beneath}; rm -rf {beneath} {beneath}.img", check=False)


def partition(seconds: int) -> Apply:
    """Drop every packet from the driver to the database."""
    rule = "OUTPUT -p tcp --dport 5432 -m owner --uid-owner music-spark -j DROP"

    def apply(bench: Bench, _chance: random.Random) -> None:
        bench.root(f"iptables -w -I {rule}; sleep {seconds}; iptables -w -D {rule}")

    return apply


def clock(shift: str, *, rejected: bool) -> Apply:
    """Another load whose clock is wrong: what is dated ahead is a reject, what is old is a late play."""

    def apply(bench: Bench, _chance: random.Random) -> None:
        count, folder = 1000, f"{ACCOUNT}/clock"
        counted = "SELECT coalesce(sum(rejected), 0) FROM ingest_reject_totals WHERE reason = 'in_future'"
        if not rejected:
            counted = "SELECT count(*) FROM stream_events WHERE source = 'import' AND event_time < now() - interval '399 days'"
        before = int(bench.board.sql(counted)[-1][0])
        bench.root(
            "test -e /usr/lib/*/faketime/libfaketime.so.1 || apt-get install -y -q libfaketime >/dev/null;"
            f" rm -rf {folder}; mkdir {folder}; LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketime.so.1)"
            f" FAKETIME='{shift}' FAKETIME_DONT_FAKE_MONOTONIC=1 /opt/music/app/bin/python {ACCOUNT}/load.py"
            f" 200 {folder} {count}"
        )
        deadline = time.monotonic() + 60
        while (seen := int(bench.board.sql(counted)[-1][0])) < before + count and time.monotonic() < deadline:
            time.sleep(1)
        if seen < before + count:
            raise TimeoutError(f"counted {seen - before} plays of a clock {shift}, wanted {count}")

    return apply


def _in_future(bench: Bench) -> int:
    """How many records were rejects for their time so far, those that became plays as well."""
    rows = bench.board.sql(
        "SELECT coalesce(sum(rejected), 0) FROM ingest_reject_totals WHERE reason = 'in_future'"
    )
    return int(rows[-1][0])


def clock_behind(bench: Bench, _chance: random.Random) -> list[str]:
    """A sender whose clock is right, seen from a board that is 7 minutes behind.

    Its plays are rejects at first. The board's clock comes nearer only by the time that passes, and then they are plays.
    """
    count, folder = 300, f"{ACCOUNT}/clock"
    before = _in_future(bench)
    bench.root(
        f"test -e {FAKETIME} || apt-get install -y -q libfaketime >/dev/null; rm -rf {folder}; mkdir {folder};"
        f" LD_PRELOAD=$(ls {FAKETIME}) FAKETIME=+7m FAKETIME_DONT_FAKE_MONOTONIC=1"
        f" /opt/music/app/bin/python {ACCOUNT}/load.py 200 {folder} {count}"
    )
    wait_for(f"{before + count} rejects", lambda: _in_future(bench) >= before + count, seconds=60)
    deadline = time.monotonic() + 300
    while (seen := bench.board.script_on_board("fault_rows.py", folder))["rows"] != count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{seen['rows']} of {count} plays were accepted when their time had come")
        time.sleep(5)
    return list(seen["ids"])


# --- names, addresses, packages, images ---


def no_names(seconds: int) -> Apply:
    """No server of names answers, and the job begins anew meanwhile."""
    rule, known = "OUTPUT -p udp --dport 53 -j DROP", "timeout 20 getent ahosts deb.debian.org >/dev/null"

    def apply(bench: Bench, _chance: random.Random) -> None:
        bench.root(
            f"{known} || {{ echo no name is known before >&2; exit 1; }}; iptables -w -I {rule};"
            f" systemctl restart --no-block music-metrics; sleep {seconds} & {known}; done=$?; wait;"
            f" iptables -w -D {rule}; [ $done != 0 ] || {{ echo a name was still known >&2; exit 1; }}"
        )

    return apply


def no_ipv6(seconds: int) -> Apply:
    """No address of IPv6, ::1 neither, and the broker and the job begin anew meanwhile."""
    switch = "sysctl -q -w net.ipv6.conf.all.disable_ipv6"

    def apply(bench: Bench, _chance: random.Random) -> None:
        bench.root(
            f"{switch}=1; systemctl restart --no-block music-kafka music-metrics; sleep {seconds};"
            f' left="$(cat /proc/net/if_inet6)"; {switch}=0; [ -z "$left" ] || {{ echo "$left" >&2; exit 1; }}'
        )

    return apply


def package_cut(bench: Bench, _chance: random.Random) -> None:
    """An installation of the owner's is killed in the middle; dpkg's own remedy then ends it."""
    bench.root(
        "export DEBIAN_FRONTEND=noninteractive; apt-get install -y -q --reinstall --download-only tzdata >/dev/null"
        " || exit 1; apt-get install -y -q --reinstall tzdata >/dev/null 2>&1 & apt=$!;"
        # The bracket keeps this very shell out of what is found.
        " until pid=$(pgrep -f '[d]pkg --status-fd'); do"
        " kill -0 $apt 2>/dev/null || { echo it was too quick to be cut off >&2; exit 1; }; done;"
        " kill -KILL $pid; ! wait $apt || { echo it was installed all the same >&2; exit 1; };"
        " dpkg --configure -a >/dev/null;"
        " apt-get install -y -q --reinstall tzdata >/dev/null && dpkg --audit >&2"
    )


def prune(bench: Bench, _chance: random.Random) -> None:
    """All that Docker does not use goes. What is running keeps its image; the job comes back from its own."""
    bench.root(
        "tar c --files-from /dev/null | docker import - music-faults:unused >/dev/null || exit 1;"
        " docker volume create music-faults >/dev/null || exit 1;"
        " docker system prune --all --force --volumes >/dev/null || exit 1;"
        " ! docker image inspect music-faults:unused >/dev/null 2>&1 || { echo nothing was pruned >&2; exit 1; };"
        " systemctl restart --no-block music-metrics"
    )
