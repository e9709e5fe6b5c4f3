"""Ask a home network for NAME.local, as mDNS does (RFC 6762), and print the address that answers.

usage: ask_name.py NAME
"""

from __future__ import annotations

import socket
import struct
import sys

GROUP, PORT, HERE = "224.0.0.251", 5353, "10.77.0.200"


def main(name: str) -> str:
    """The IPv4 address of NAME.local, asked ten times within 20 s."""
    asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    asker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
    asker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    asker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(HERE))
    asker.bind(("", PORT))
    asker.setsockopt(
        socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + socket.inet_aton(HERE)
    )
    asker.settimeout(2)
    encoded = bytes([len(name)]) + name.encode() + b"\x05local\0"
    question = struct.pack(">6H", 0, 0, 1, 0, 0, 0) + encoded + struct.pack(">2H", 1, 1)
    for _ in range(10):
        asker.sendto(question, (GROUP, PORT))
        try:
            answer = asker.recv(9000)
        except TimeoutError:
            continue
        if encoded in answer and struct.unpack(">H", answer[6:8])[0] == 1:
            return socket.inet_ntoa(answer[-4:])
    sys.exit(f"found no answer to {name}.local within 20 s, wanted its address")


if __name__ == "__main__":
    print(main(sys.argv[1]))
