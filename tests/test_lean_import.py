"""What LanceDB imports for catalogue servers waits until somebody uses it, and Arrow keeps no memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagedbd.stores import KINDS

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


POOL = """
import sys
from imagedbd.stores import open_store

store = open_store(sys.argv[1], sys.argv[2])
import pyarrow

assert pyarrow.default_memory_pool().backend_name == "system"
store.close()
"""


@pytest.mark.parametrize("kind", KINDS)
def test_arrow_gives_back_what_it_frees(tmp_path: Path, kind: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "ARROW_DEFAULT_MEMORY_POOL"}
    done = subprocess.run(
        [sys.executable, "-c", POOL, kind, str(tmp_path / "store")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_classes_of_catalogue_servers_are_built_when_one_is_made(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "store")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
