"""A board whose card was written by the Raspberry Pi Imager: cloud-init has its own idea of the name at each boot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conftest import Board, inventory_of, own_board, run_playbook

# What the Imager writes; the simulated board's network is not cloud-init's.
SEED = """
mkdir -p /var/lib/cloud/seed/nocloud
cat >/var/lib/cloud/seed/nocloud/user-data <<'DATA'
#cloud-config
hostname: raspberrypi
manage_etc_hosts: true
ssh_deletekeys: false
users: []
DATA
echo 'instance-id: rpi-imager-1' >/var/lib/cloud/seed/nocloud/meta-data
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends cloud-init >/dev/null
echo 'network: {config: disabled}' >/etc/cloud/cloud.cfg.d/98-network.cfg
"""


@pytest.fixture
def imager_board() -> Iterator[Board]:
    with own_board("imager") as board:
        yield board


def test_name_and_hosts_survive_a_boot(imager_board, tmp_path):
    inventory = inventory_of(imager_board, tmp_path)

    def reboot() -> str:
        imager_board.power("reboot")
        imager_board.ssh("cloud-init status --wait", check=False)
        return imager_board.ssh("hostname; getent ahostsv4 imager || true").stdout

    imager_board.ssh(f"sudo sh -e <<'ROOT'\n{SEED}\nROOT", timeout=600)
    assert reboot().startswith("raspberrypi\n"), "cloud-init is not at work here"

    done = run_playbook(str(inventory), "site.yml", "--tags", "board")
    assert done.returncode == 0, done.stdout[-3000:]
    assert reboot().startswith("imager\n127.0.1.1 ")
    again = run_playbook(str(inventory), "site.yml", "--tags", "board")
    assert again.returncode == 0, again.stdout[-3000:]
    assert "changed=0" in again.stdout, again.stdout[-3000:]
