"""After a restart and a pulled plug the board is at work again without Ansible, with every event once."""

from __future__ import annotations

from conftest import recount, wait_until_healthy


def test_board_is_at_work_again_by_itself(board):
    wait_until_healthy(board)
    board.ssh("sudo musicctl trace")


def test_nothing_is_lost_or_doubled(board):
    recount(board)
    board.ssh("sudo musicctl validate")
