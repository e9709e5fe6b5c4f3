"""What a stranger on the same network, a viewer and a user of the board can reach, and what they cannot."""

from __future__ import annotations

import json
import re
import secrets

import httpx
import pytest

from conftest import CONTAINERS, DASHBOARDS, PROJECT, UNITS, count_of_a_dataset, dataset_of, wait_for

# What home networks are asked for, and what the appliance's parts would use.
UDP = "53,67,68,69,111,123,137,138,161,500,514,631,1900,4500,5353,5432,7077,8088,9092,9093"


@pytest.mark.parametrize("address", ["address", "address6"])
def test_only_ssh_dashboards_and_scrobble_server_answer_from_outside(board, address):
    assert board.open_ports(getattr(board, address)) == ["22/open/tcp", "8088/open/tcp", "8090/open/tcp"]


@pytest.mark.parametrize("address", ["address", "address6"])
def test_nothing_answers_over_udp(board, address):
    assert board.open_ports(getattr(board, address), "-sU", "-p", UDP, "--max-scan-delay", "20ms") == []


def test_the_boards_name_answers_a_multicast(board):
    answer = board.outside("python3", str(PROJECT / "molecule/tests/ask_name.py"), board.name, timeout=60)
    assert answer.stdout.strip() == board.address


def test_doors_stay_shut_when_firewall_and_docker_are_restarted(board):
    board.ssh(
        "sudo ufw reload && sudo ufw --force disable && sudo ufw --force enable && sudo systemctl restart docker"
    )
    wait_for("all parts", lambda: board.ssh("sudo musicctl trace", check=False).returncode == 0, seconds=120)
    for address in ("address", "address6"):
        test_only_ssh_dashboards_and_scrobble_server_answer_from_outside(board, address)


def test_containers_are_hardened_as_docker_sees_them(board):
    out = board.ssh(f"sudo docker inspect {' '.join(f'music-{name}' for name in CONTAINERS)}").stdout
    for container in json.loads(out):
        name, host = container["Name"], container["HostConfig"]
        assert container["Config"]["User"].split(":")[0] not in ("", "0", "root"), name
        assert host["CapDrop"] == ["ALL"], name
        assert "no-new-privileges" in " ".join(host["SecurityOpt"]), name
        assert host["ReadonlyRootfs"] is True, name
        assert host["NetworkMode"] == "host", name
        assert host["LogConfig"]["Type"] == "none", name
        assert not host["PortBindings"], name


@pytest.mark.parametrize("unit", UNITS)
def test_units_are_sandboxed_as_systemd_sees_them(board, unit):
    out = board.ssh(f"systemd-analyze security --no-pager {unit}", check=False).stdout
    exposure = float(re.search(r"Overall exposure level for \S+ ([\d.]+)", out).group(1))
    assert exposure <= 2.0, out


def test_nobody_is_in_the_docker_group(board):
    assert board.ssh("getent group docker").stdout.strip().split(":")[3] == ""


@pytest.mark.parametrize(
    "name", ["music", *(f"music-{part}" for part in ("kafka", "postgres", "spark", "superset"))]
)
def test_an_account_of_a_service_has_no_password_and_no_other_group(board, name):
    groups, account, password = board.ssh(
        f"id -Gn {name}; getent passwd {name}; sudo getent shadow {name}"
    ).stdout.splitlines()
    assert groups == name
    assert account.endswith(":/nonexistent:/usr/sbin/nologin")
    assert password.split(":")[1] == "!"


# Everything that others than the secrets' readers see; the layers of the images lie under /var/lib/docker.
SEARCH = """
set -u
umask 077
rm -rf /root/places; mkdir /root/places; cd /root/places
journalctl --no-pager >journal
cat /etc/systemd/system/music-* >units
ps -eo args >processes
docker ps -q | xargs docker inspect >containers
docker image ls -q 'music/*' | xargs -n 1 docker image history --no-trunc >images
cat /etc/music/music.toml >settings
awk length SECRETS >/root/secrets
grep -rlaF -f /root/secrets /root/places /opt/music /var/log /var/lib/docker /tmp
rm -r /root/places /root/secrets
"""
# The same words in each of them, planted without the help of a command line.
PLANT = """
set -eu
umask 077
mkdir /root/canary; echo CANARY >/root/canary/secret
read -r canary </root/canary/secret
systemd-cat --identifier canary </root/canary/secret
printf '[Service]\\nExecStart=true\\nEnvironment=X=%s\\n' "$canary" >/etc/systemd/system/music-canary.service
python3 -c 'import time; time.sleep(600)' "$canary" >/dev/null 2>&1 &
echo $! >/root/canary/pid
image=$(docker image ls --format '{{.Repository}}:{{.Tag}}' music/postgres | head -n 1)
printf 'FROM %s\\nUSER 0\\nENV X=%s\\nRUN echo "$X" >/canary-layer\\n' "$image" "$canary" |
  DOCKER_BUILDKIT=0 docker build --quiet --network host --tag music/canary:1 - >/dev/null
docker run --detach --rm --network host --name canary music/canary:1 sleep 600 >/dev/null
for folder in /opt/music /var/log /tmp; do cp /root/canary/secret $folder/canary-file; done
cp -p /etc/music/music.toml /root/canary/music.toml; printf '# %s\\n' "$canary" >>/etc/music/music.toml
"""
CLEAN = """
cp -p /root/canary/music.toml /etc/music/music.toml
kill "$(cat /root/canary/pid)"
docker kill canary; docker image rm --force music/canary:1; docker image prune --force
rm -rf /root/canary /etc/systemd/system/music-canary.service /opt/music/canary-file /var/log/canary-file /tmp/canary-file
"""


def as_root(board, script: str) -> str:
    return board.ssh(f"sudo sh -s <<'SCRIPT'\n{script}\nSCRIPT", check=False, timeout=300).stdout


def test_secrets_are_closed_and_nowhere_else(board):
    listing = board.ssh("sudo sh -c 'stat -c \"%a %n\" /etc/music/secrets/*'").stdout.splitlines()
    assert listing, "no secrets"
    assert all(line.startswith("600 ") for line in listing), listing
    found = as_root(board, SEARCH.replace("SECRETS", "/etc/music/secrets/*"))
    assert found == "", found


def test_the_search_finds_a_secret_in_each_of_the_places(board):
    canary = f"canary-{secrets.token_hex(16)}"
    plant = PLANT.replace("CANARY", canary)
    try:
        print(as_root(board, plant))
        found = as_root(board, SEARCH.replace("SECRETS", "/root/canary/secret")).splitlines()
    finally:
        as_root(board, CLEAN)
    places = {
        f"/root/places/{name}"
        for name in ("journal", "units", "processes", "containers", "images", "settings")
    }
    files = {f"{folder}/canary-file" for folder in ("/opt/music", "/var/log", "/tmp")}
    assert (places | files) - set(found) == set(), found
    assert [
        path for path in found if path.startswith("/var/lib/docker/") and path.endswith("canary-layer")
    ], found


def test_all_packages_are_listed_with_their_licences(board):
    bill = json.loads(board.ssh("sudo cat /var/lib/music/sbom.cdx.json").stdout)
    assert bill["bomFormat"] == "CycloneDX"
    owners = {owner["name"]: owner["components"] for owner in bill["components"]}
    assert set(owners) == {"music-streaming", "board", "kafka", "postgres", "spark", "superset"}
    known = {(owner, package["name"]) for owner, packages in owners.items() for package in packages}
    assert known >= {
        ("music-streaming", "kafka-python"),
        ("board", "docker.io"),
        ("kafka", "kafka-clients"),
        ("postgres", "postgresql-17"),
        ("spark", "pyspark"),
        ("spark", "spark-core_2.13"),
        ("superset", "apache-superset"),
    }
    without = [package for packages in owners.values() for package in packages if not package.get("licenses")]
    assert len(without) < len(known) / 5, without


@pytest.fixture(scope="module")
def site(board):
    """Superset as an anonymous visitor."""
    with httpx.Client(base_url=f"http://{board.address}:8088", timeout=60) as client:
        yield client


def test_an_anonymous_visitor_sees_the_login_page_and_nothing_else(site):
    for path in (
        "/api/v1/dashboard/",
        "/api/v1/chart/",
        "/api/v1/database/",
        "/api/v1/sqllab/",
        "/swagger/v1",
    ):
        answer = site.get(path)
        assert answer.status_code in (401, 302, 404) or answer.json().get("count") == 0, (
            path,
            answer.text[:200],
        )
    assert "/login" in site.get("/superset/dashboard/music-live/").headers["location"]
    assert site.post("/api/v1/chart/data", json={}).status_code in (400, 401)


def test_answers_carry_the_headers_that_browsers_obey(site):
    answer = site.get("/login/")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


def test_a_viewer_looks_and_changes_nothing(board):
    password = secrets.token_urlsafe()
    board.ssh(
        "sudo docker exec music-superset superset fab create-user --role Viewer --username viewer --firstname V "
        f"--lastname V --email viewer@music.invalid --password {password}"
    )
    with board.superset("viewer", password) as viewer:
        boards = viewer.get("/api/v1/dashboard/").json()["result"]
        assert sorted(found["slug"] for found in boards) == [f"music-{name}" for name in DASHBOARDS]
        live = next(found for found in boards if found["slug"] == "music-live")
        charts = viewer.get(f"/api/v1/dashboard/{live['id']}/charts").json()["result"]
        assert len(charts) == 8
        dataset = dataset_of(viewer, "user_engagement_metrics")
        assert count_of_a_dataset(viewer).status_code == 200
        refused = [
            viewer.put(f"/api/v1/dashboard/{live['id']}", json={"dashboard_title": "x"}),
            viewer.delete(f"/api/v1/dashboard/{live['id']}"),
            viewer.post("/api/v1/dashboard/", json={"dashboard_title": "x"}),
            viewer.put(f"/api/v1/dataset/{dataset}", json={"description": "x"}),
            viewer.post("/api/v1/sqllab/execute/", json={"database_id": 1, "sql": "SELECT 1"}),
        ]
        assert [answer.status_code for answer in refused] == [403] * len(refused), [
            a.text[:200] for a in refused
        ]


def test_logins_are_throttled(site):
    wrong = {"username": "admin", "password": "guess", "provider": "db"}
    codes = [site.post("/api/v1/security/login", json=wrong).status_code for _ in range(40)]
    assert codes[0] == 401
    assert codes[-1] == 429


def test_the_reader_of_the_dashboards_only_reads(board):
    for statement in (
        "BEGIN READ WRITE; DELETE FROM stream_events",
        "BEGIN READ WRITE; CREATE TABLE mine (a int)",
        "COPY (SELECT 1) TO PROGRAM 'id'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT rolpassword FROM pg_authid",
    ):
        done = board.ssh(f'sudo musicctl sql -c "{statement}"', check=False)
        assert done.returncode != 0, statement
        assert "permission denied" in done.stderr, done.stderr
