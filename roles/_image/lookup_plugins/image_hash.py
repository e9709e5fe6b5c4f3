"""Name an image after everything it is made of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: image_hash
short_description: hash of a build context and of what else goes into an image
description: >-
  The same inputs give the same 12 hex digits on every control node, whatever the files' times and owners are.
options:
  _terms:
    description: Folders and files on the control node; of a folder every file below it counts, with its name.
    required: true
  inputs:
    description: Whatever else decides the result (build arguments, the base image), any JSON value.
    type: raw
"""


class LookupModule(LookupBase):
    """lookup('image_hash', '/path/files/images/kafka', inputs={'BASE': ...}) -> '0f3a9c1d2e4b'."""

    def run(self, terms: list[str], variables: dict | None = None, **kwargs: object) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        digest = hashlib.sha256(json.dumps(self.get_option("inputs"), sort_keys=True).encode())
        for term in terms:
            top = Path(term)
            if not top.exists():
                raise AnsibleLookupError(f"found no {top}, wanted what an image is built from")
            below = [top] if top.is_file() else sorted(top.rglob("*"))
            for path in filter(Path.is_file, below):
                content = path.read_bytes()
                name = path.relative_to(top.parent).as_posix()
                digest.update(f"{name}\0{path.stat().st_mode & 0o111 != 0}\0{len(content)}\0".encode())
                digest.update(content)
        return [digest.hexdigest()[:12]]
