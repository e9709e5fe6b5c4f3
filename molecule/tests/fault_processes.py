"""Faults of processes: parts killed, stopped or slowed down, Docker, and Spark's own."""

from __future__ import annotations

import random

from fault_bench import Apply, Bench


def main_of(container: str) -> str:
    """Shell text for the process that a container is for: the child of its init."""
    return f"$(pgrep -P $(docker inspect --format {{{{.State.Pid}}}} music-{container}))"


def all_of(container: str) -> str:
    return f"$(docker top music-{container} -o pid | tail -n +2)"


def like(container: str, words: str) -> str:
    return f"$(docker top music-{container} -o pid,args | awk '/{words}/ {{print $1}}')"


def unit(name: str) -> str:
    return f"$(systemctl show --property MainPID --value {name})"


EXECUTOR = like("spark-worker", "CoarseGrainedExecutorBackend")
BACKEND = like("postgres", "postgres: music_writer")

KILLED = {
    "broker": main_of("kafka"),
    "driver": main_of("metrics"),
    "executor": EXECUTOR,
    "worker": main_of("spark-worker"),
    "master": main_of("spark-master"),
    "PostgreSQL backend": BACKEND,
    "postmaster": main_of("postgres"),
    "Superset": main_of("superset"),
    "producer": unit("music-producer"),
    "scrobble server": unit("music-scrobble"),
    "dockerd": unit("docker"),
    "containerd": unit("containerd"),
}
STOPPED = KILLED | {
    "broker": all_of("kafka"),
    "driver": all_of("metrics"),
    "worker": all_of("spark-worker"),
    "postmaster": all_of("postgres"),
    "Superset": all_of("superset"),
}


def _pids(script: str) -> str:
    # An empty list would make a fault that is none.
    return f'pids="{script}"; [ -n "$pids" ] || {{ echo "no such process" >&2; exit 1; }}; '


def kill(pids: str) -> Apply:
    def apply(bench: Bench, _chance: random.Random) -> None:
        bench.root(_pids(pids) + "kill -KILL $pids")

    return apply


def stop_for(pids: str, seconds: int) -> Apply:
    def apply(bench: Bench, _chance: random.Random) -> None:
        # Some may be ended and replaced meanwhile.
        bench.root(_pids(pids) + f"kill -STOP $pids; sleep {seconds}; kill -CONT $pids 2>/dev/null || true")

    return apply


def down_for(name: str, seconds: int) -> Apply:
    def apply(bench: Bench, _chance: random.Random) -> None:
        bench.root(
            f"systemctl stop {name}; sleep {seconds}; systemctl start --no-block {name}",
            timeout=seconds + 120,
        )

    return apply


def shell(script: str) -> Apply:
    def apply(bench: Bench, _chance: random.Random) -> None:
        bench.root(script)

    return apply


def end_unheard(bench: Bench, _chance: random.Random) -> None:
    """Kill Superset when Docker does not listen: as soon as containerd is back that was killed."""
    bench.root(
        _pids(main_of("superset"))
        + f"old={unit('containerd')}; kill -KILL $old; new=0;"
        + f' until [ "$new" -gt 0 ] && [ "$new" -ne $old ]; do new={unit("containerd")}; done; kill -KILL $pids'
    )


def spoil_scratch(bench: Bench, chance: random.Random) -> None:
    """Delete or truncate one file of the job's scratch."""
    files = bench.root("docker exec music-metrics find /tmp/spark -type f").split()
    harm = chance.choice(["rm -f", "truncate -s 0", "truncate -s 7"])
    bench.root(f"docker exec music-metrics {harm} {chance.choice(sorted(files))}", check=False)


def delete_scratch(bench: Bench, _chance: random.Random) -> None:
    bench.root("docker exec music-metrics sh -c 'rm -rf /tmp/spark/*'", check=False)


def replace_worker(bench: Bench, _chance: random.Random) -> None:
    """Kill the worker while the master is away: the master comes back and remembers one that is no more."""
    answer = "/usr/local/libexec/music/spark-ask worker 127.0.0.1 8081 2>/dev/null | grep -q id"
    bench.root(
        "systemctl stop music-spark-master; docker kill music-spark-worker >/dev/null;"
        f' timeout 60 sh -c "until {answer}; do sleep 0.5; done" || exit 1;'
        " systemctl start --no-block music-spark-master"
    )


def second_driver(bench: Bench, _chance: random.Random) -> None:
    """Run another driver for a while, with executors of its own so that it does read and write."""
    bench.root(
        "command=$(systemctl cat music-metrics | sed -n '/^ExecStart=/,/[^\\\\]$/p' | sed 's/^ExecStart=//; s/\\\\$//'"
        " | sed 's/--name music-metrics/--name music-second --env MUSIC_SPARK__MASTER=local[1]/' | tr '\\n' ' ');"
        ' eval "timeout --kill-after 10 75 $command" >/tmp/second-driver 2>&1;'
        " docker rm --force music-second >/dev/null 2>&1;"
        " grep -q 'goes on at\\|records in' /tmp/second-driver || { tail -n 20 /tmp/second-driver >&2; exit 1; }"
    )


def slow_down(seconds: int) -> Apply:
    """Let driver and executor run for a tenth of each second, as on a board that is too slow for its backlog."""
    pids = f"{all_of('metrics')} {EXECUTOR}"

    def apply(bench: Bench, _chance: random.Random) -> None:
        bench.root(
            # Who is to rest next is asked for while they rest: it takes longer than their turn.
            f'turns=0; until=$(($(date +%s) + {seconds})); pids="{pids}"; while [ "$(date +%s)" -lt $until ]; do'
            f' kill -STOP $pids 2>/dev/null && turns=$((turns + 1)); sleep 0.7; next="{pids}"; kill -CONT $pids 2>/dev/null;'
            " pids=$next; sleep 0.1; done;"
            f" [ $turns -ge {seconds // 3} ] || {{ echo only $turns turns >&2; exit 1; }}",
            timeout=seconds + 120,
        )

    return apply
