"""usage: classpath.py SPARK_HOME

Put all jars of Spark behind one, whose manifest names them in order. A wildcard lists a folder in the order of its
file system, another one on each board, and Java takes a class archive only with the class path that it was made
with.
"""

import shutil
import sys
import textwrap
import zipfile
from pathlib import Path

home = Path(sys.argv[1])
shutil.move(home / "jars", home / "lib")
(home / "jars").mkdir()
names = " ".join(f"../lib/{path.name}" for path in sorted((home / "lib").glob("*.jar")))
# A line of a manifest has at most 72 bytes; the next one goes on behind a blank.
lines = textwrap.fill(
    f"Class-Path:~{names.replace(' ', '~')}", 70, subsequent_indent=" ", break_on_hyphens=False
)
manifest = f"Manifest-Version: 1.0\n{lines.replace('~', ' ')}\n"
with zipfile.ZipFile(home / "jars" / "all.jar", "w") as archive:
    # The same bytes, whenever it is built.
    archive.writestr(zipfile.ZipInfo("META-INF/MANIFEST.MF", (2020, 1, 1, 0, 0, 0)), manifest)
