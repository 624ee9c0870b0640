from __future__ import annotations

import json
import os
from dataclasses import asdict, replace

import pytest

from imagedbd.datatypes import ModelInfo, Preprocess
from imagedbd.errors import StoreError, StoreUnreadableError
from imagedbd.stores.manifest import FILE_NAME, FORMAT, Manifest, read_manifest, write_manifest

MODEL = ModelInfo(
    "ViT-B-16/laion2b_s34b_b88k",
    "a3f1",
    512,
    Preprocess(224, 224, mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)),
)


@pytest.fixture
def folder(tmp_path):
    return os.fspath(tmp_path)


def put(folder, content):
    with open(os.path.join(folder, FILE_NAME), "wb") as file:
        file.write(content)


def good():
    return {"kind": "lance", "format": 1, "schema": 1, "vector_dtype": "float16", "model": None}


@pytest.mark.parametrize("model", [None, MODEL])
def test_a_manifest_is_read_as_it_was_written(folder, model):
    manifest = Manifest("lance", model=model)
    write_manifest(folder, manifest)
    assert read_manifest(folder) == manifest


def test_the_key_of_the_model_survives(folder):
    write_manifest(folder, Manifest("lance", model=MODEL))
    assert read_manifest(folder).model.key == MODEL.key


def test_there_is_none_where_none_was_written(folder):
    assert read_manifest(folder) is None
    assert read_manifest(os.path.join(folder, "no such folder")) is None


def test_a_newer_format_is_refused_with_what_to_do(folder):
    put(folder, json.dumps({"format": FORMAT + 1, "something": "new"}).encode())
    with pytest.raises(StoreUnreadableError, match="newer imagedbd") as caught:
        read_manifest(folder)
    assert "imagedbd repair" in caught.value.message
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 200,
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        json.dumps(good()).encode()[:-9],
        json.dumps({**good(), "format": "1"}).encode(),
        json.dumps({**good(), "kind": None}).encode(),
        json.dumps({**good(), "model": {"spec": "x"}}).encode(),
        json.dumps({**good(), "model": []}).encode(),
        b"[" * 100_000,
    ],
)
def test_a_damaged_manifest_names_the_mending_command(folder, content):
    put(folder, content)
    with pytest.raises(StoreUnreadableError, match="imagedbd repair"):
        read_manifest(folder)


def test_a_manifest_that_is_a_folder_is_reported(folder):
    os.mkdir(os.path.join(folder, FILE_NAME))
    with pytest.raises(StoreUnreadableError, match="imagedbd repair"):
        read_manifest(folder)


def test_a_failed_write_leaves_the_old_manifest_and_no_litter(folder, monkeypatch):
    write_manifest(folder, Manifest("lance"))

    def refuse(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match="No space left"):
        write_manifest(folder, Manifest("lance", model=MODEL))
    assert read_manifest(folder) == Manifest("lance")
    assert os.listdir(folder) == [FILE_NAME]


def test_file_and_folder_are_flushed_and_the_file_before_it_is_renamed(folder, monkeypatch):
    real_sync, real_replace, steps = os.fsync, os.replace, []

    def sync(descriptor):
        steps.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        real_sync(descriptor)

    def rename(source, target):
        steps.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    write_manifest(folder, Manifest("lance"))
    assert steps == [f"{FILE_NAME}.tmp", "rename", os.path.basename(folder)]


def test_a_manifest_from_before_colour_profiles_says_that_they_were_not_applied(folder):
    content = asdict(Manifest("lance", schema=1, model=MODEL))
    assert content["model"]["preprocess"].pop("to_srgb") is True
    put(folder, json.dumps(content).encode())
    found = read_manifest(folder)
    assert found.model == replace(MODEL, preprocess=replace(MODEL.preprocess, to_srgb=False))
    assert f"{found.model.key}:sRGB" == MODEL.key
