"""What LanceDB imports for catalogue servers is left out until somebody uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from imagedbd.stores import open_store

def is_there():
    return any(name.startswith("lance_namespace_urllib3_client") for name in sys.modules)

store = open_store("lance", sys.argv[1])
assert store.count() == 0
store.close()
assert "lancedb" in sys.modules
assert not is_there()

import lance_namespace

made = lance_namespace.ListTablesResponse(tables=["pictures"])
assert made.tables == ["pictures"] and made.model_dump()["tables"] == ["pictures"]
from lance_namespace_urllib3_client.models import ListTablesResponse

assert type(made) is ListTablesResponse
"""


def test_classes_of_catalogue_servers_are_built_when_one_is_made(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "store")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
