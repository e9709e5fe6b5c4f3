"""What can be broken on a board: the table that `musicctl doctor` names from, and docs/doctor.md shows."""

from __future__ import annotations

from dataclasses import dataclass

from music_streaming.error import MusicError

BOARD, CLOCK, DISK, DOCKER, KAFKA, TOPIC = "board", "clock", "disk", "docker", "kafka", "topic"
JOB, TABLES, SUPERSET, SENDERS, FIREWALL, LAN, FLOW = (
    "job", "tables", "superset", "senders", "firewall", "lan", "flow",
)  # fmt: skip
# Of a unit: the link is the unit's own.
OF_ITS_UNIT = ""

# Link -> units whose work it is; docker.service and avahi-daemon.service are Debian's.
UNITS = {
    DOCKER: ("docker", "music-watch"),
    KAFKA: ("music-kafka",),
    JOB: ("music-spark-master", "music-spark-worker", "music-metrics"),
    TABLES: ("music-postgres",),
    SUPERSET: ("music-superset",),
    SENDERS: ("music-producer", "music-scrobble"),
    LAN: ("avahi-daemon",),
}


@dataclass(frozen=True)
class Breakage:
    """A kind of breakage: its link, what it is in words, what is wanted, the remedy, and what --fix does.

    wanted and remedy may name {unit}, {port}, {data} and {secrets}; mend is "" where only a person may do it.
    """

    link: str
    what: str
    wanted: str
    remedy: str
    mend: str = ""


class Broken(MusicError):  # noqa: N818  a state of the board, no failure of the program
    """A link that does not hold, as one of BREAKAGES; `unit` is the service whose journal tells more."""

    def __init__(self, kind: str, found: str, *, unit: str = "", **names: object) -> None:
        breakage = BREAKAGES[kind]
        self.kind, self.found, self.unit = kind, found, unit
        self.mend = breakage.mend
        self.wanted = breakage.wanted.format(unit=unit, **names)
        self.remedy = breakage.remedy.format(unit=unit, **names)
        super().__init__(f"found {found}, wanted {self.wanted}. Remedy: {self.remedy}")


class Doubtful(Broken):
    """What the flow can go on with, but the owner should know."""


class Unseen(MusicError):  # noqa: N818
    """A link that could not be looked at, for want of rights or since its part is on another board."""


START = "start the unit"
BREAKAGES = {
    "settings": Breakage(
        BOARD, "the settings cannot be read", "settings without a mistake", "run site.yml, which writes them"
    ),
    "no-systemd": Breakage(
        BOARD, "systemd does not answer", "an answer by D-Bus",
        "sudo systemctl start dbus.socket; sudo reboot",
    ),
    "no-units": Breakage(
        BOARD, "no unit of the appliance is installed", "units music-*", "run site.yml, which installs them"
    ),
    "clock-behind": Breakage(
        CLOCK, "the clock is behind what was stored", "a clock that is right", "timedatectl; date -u"
    ),
    "clock-alone": Breakage(
        CLOCK, "no time server keeps the clock right", "a synchronised clock",
        "sudo systemctl restart systemd-timesyncd; timedatectl timesync-status",
    ),
    "disk-missing": Breakage(
        DISK, "the folder of all data is gone", "the folder",
        "findmnt {data}; mount its disk, or restore a backup",
    ),
    "disk-read-only": Breakage(
        DISK, "the disk takes no writes", "a file system that can be written",
        "sudo dmesg --level=err,warn; sudo reboot checks it; a card that does so again is worn out",
    ),
    "disk-full": Breakage(
        DISK, "the disk is full", "1 GiB free, and inodes",
        "sudo du -xh / | sort -h | tail -n 20; lower the retention in the inventory, or add a disk",
        "remove apt's package files and old files of the journal",
    ),
    "docker-silent": Breakage(
        DOCKER, "Docker runs and does not answer", "an answer of the daemon",
        "sudo systemctl restart docker; journalctl -u docker -n 50",
    ),
    "image-missing": Breakage(
        DOCKER, "an image was removed", "the image in Docker", "run site.yml, which builds or loads it"
    ),
    "unit-gone": Breakage(
        BOARD, "a unit's file was deleted", "the file of a unit that is enabled",
        "run site.yml, which writes it",
    ),
    "unit-masked": Breakage(
        OF_ITS_UNIT, "a unit is masked", "a unit that may start",
        "sudo systemctl unmask {unit}; sudo systemctl start {unit}",
    ),
    "unit-stopped": Breakage(
        OF_ITS_UNIT, "a unit is stopped", "active", "sudo systemctl start {unit}", START
    ),
    "unit-failed": Breakage(
        OF_ITS_UNIT, "a unit failed", "active",
        "journalctl -u {unit} -n 50; sudo systemctl restart {unit}", "start the unit again",
    ),
    "unit-restarts": Breakage(
        OF_ITS_UNIT, "a unit starts, or ends and starts again", "active",
        "journalctl -u {unit} -n 50; run site.yml", "wait until it has started",
    ),
    "unit-disabled": Breakage(
        OF_ITS_UNIT, "a unit does not come back after a reboot", "enabled",
        "sudo systemctl enable {unit}", "enable the unit",
    ),
    "kafka-silent": Breakage(
        KAFKA, "the broker runs and does not answer", "a broker that answers",
        "sudo systemctl restart music-kafka; journalctl -u music-kafka -n 50",
    ),
    "topic-missing": Breakage(
        TOPIC, "the topic was deleted", "the topic of the plays", "sudo musicctl topics", "make the topic"
    ),
    "topic-differs": Breakage(
        TOPIC, "the topic has other settings", "those of files/topics.yml and the inventory",
        "sudo musicctl topics",
    ),
    "no-worker": Breakage(
        JOB, "the Spark master has no worker", "a worker that is alive",
        "sudo systemctl restart music-spark-master music-spark-worker; journalctl -u {unit} -n 50",
    ),
    "postgres-silent": Breakage(
        TABLES, "PostgreSQL runs and takes no connection", "a connection",
        "sudo systemctl restart music-postgres; journalctl -u music-postgres -n 50",
    ),
    "postgres-refuses": Breakage(
        TABLES, "a password differs from that of the database", "a login with the password of {secrets}",
        "run site.yml, which gives the role its password",
    ),
    "secret-missing": Breakage(
        TABLES, "a secret's file is missing", "one line with the secret", "run site.yml, which makes it"
    ),
    "schema": Breakage(
        TABLES, "the tables are of another version", "every migration of this version",
        "sudo musicctl schema; it says what does not fit",
    ),
    "table-missing": Breakage(
        TABLES, "a table was dropped", "every table of the schema",
        "restore the newest backup; a table's plays cannot be made anew",
    ),
    "rejects-held": Breakage(
        TABLES, "plays that were ahead of the clock are due and not judged again", "none that is due",
        "sudo systemctl restart music-metrics; it judges them again within a minute",
        "restart the job, which judges them again",
    ),
    "superset-silent": Breakage(
        SUPERSET, "Superset runs and does not answer", "an answer of /health",
        "sudo systemctl restart music-superset; journalctl -u music-superset -n 50",
    ),
    "superset-login": Breakage(
        SUPERSET, "Superset refuses the appliance's account", "a login with the secret superset_appliance",
        "sudo systemctl restart music-superset, which sets the password; else run site.yml",
    ),
    "firewall-off": Breakage(
        FIREWALL, "the firewall is off", "ufw on, all else denied", "run site.yml, which turns it on"
    ),
    "firewall-closed": Breakage(
        FIREWALL, "no rule lets anybody to the dashboards", "a rule for port {port}",
        "run site.yml (firewall_dashboard_sources says who may)",
    ),
    "firewall-not-loaded": Breakage(
        FIREWALL, "the kernel has not the rules of ufw", "the rules of /etc/ufw",
        "sudo ufw reload", "load them again",
    ),
    "lan-no-route": Breakage(
        LAN, "the board is in no network", "an address and a way out",
        "look at the cable or the wireless network; ip address; ip route",
    ),
    "lan-dashboards": Breakage(
        LAN, "the dashboards answer on the board alone", "an answer at port {port} of the board's address",
        "superset_bind_address in the inventory, then run site.yml",
    ),
    "lan-names": Breakage(
        LAN, "no name server answers", "an answer for deb.debian.org",
        "cat /etc/resolv.conf; resolvectl status; look at the router",
    ),
    "flow": Breakage(
        FLOW, "each part answers, and a record does not come through", "the record's way to the end",
        "journalctl -u {unit} -n 50; sudo systemctl restart {unit}",
    ),
    "no-answer": Breakage(
        OF_ITS_UNIT, "a part answers neither yes nor no", "an answer in time",
        "try again; sudo reboot where it stays so",
    ),
}  # fmt: skip
