"""The interface is what its OpenAPI page says: every answer fits it, and what it forbids is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Union, cast

import pytest
from footprint import footprint, settled
from hypothesis import HealthCheck, given, settings
from pictures import exif, save
from pydantic import TypeAdapter
from wire import ask, session

from imagedbd import answers
from imagedbd.api import create_app

if TYPE_CHECKING:
    from machine import Machine
    from schemathesis import Case
    from schemathesis.schemas import BaseSchema

    from imagedbd.library import Library

EXAMPLES = int(os.environ.get("IMAGEDBD_API_EXAMPLES", "6"))
REFUSALS = ["400", "404", "409", "503", "504"]
"""What may come of a request that fits the page: it asks for what there is not, or cannot be had now."""
ENDLESS = "/backup"
"""No answer of it ends before the one who asked hangs up."""
FREELY = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def served(shared_machine: Machine) -> Machine:
    for number in range(3):
        save(shared_machine.photos / f"{number}.jpg", number, exif=exif(make="NIKON"))
    (shared_machine.photos / "broken.jpg").write_bytes(b"no picture")
    shared_machine.start()
    shared_machine.wait()
    return shared_machine


def _page() -> dict[str, Any]:
    """The page that a daemon of this version shows, whatever its library holds."""
    app: Any = create_app(cast("Library", None))
    page: dict[str, Any] = app.inside.inside.openapi()
    return page


@pytest.fixture(scope="module")
def fuzzed() -> BaseSchema:
    import schemathesis  # takes a second that all runs of other tests can do without

    schema = schemathesis.openapi.from_dict(_page())
    schema.config.base_url = "http://imagedbd"
    schema.config.checks.positive_data_acceptance.expected_statuses = ["2xx", *REFUSALS]
    return schema.exclude(path=ENDLESS)


def _operations() -> list[str]:
    paths = _page()["paths"].items()
    return [f"{method.upper()} {path}" for path, methods in paths for method in methods if path != ENDLESS]


def test_the_daemon_shows_this_page(served: Machine) -> None:
    assert ask(served, "GET", "/openapi.json")[1] == _page()


def test_every_line_fits_the_page(served: Machine) -> None:
    for path, row in (("/pictures", answers.ListedPicture), ("/failures", answers.ListedFailure)):
        described = _page()["paths"][path]["get"]["responses"]["200"]["content"][answers.JSON_LINES]
        assert described["x-line"] == row.model_json_schema()
        with session(served) as own:
            lines = own.get(f"http://imagedbd{path}", timeout=30).text.splitlines()
        assert lines
        for line in lines:
            row.model_validate_json(line)


def test_every_line_of_an_answer_that_takes_its_time_fits_the_page(served: Machine) -> None:
    (served.photos / "twin.jpg").write_bytes((served.photos / "1.jpg").read_bytes())
    served.wait()
    rows = {
        "/export": [answers.ExportedRecord],
        "/dupes": [answers.HuntStep, answers.DupeGroup, answers.HuntEnd, answers.ErrorAnswer],
    }
    for path, kinds in rows.items():
        described = _page()["paths"][path]["post"]["responses"]["200"]["content"][answers.JSON_LINES]
        assert all(kind.__name__ in described["schema"]["description"] for kind in kinds)
        with session(served) as own:
            lines = own.post(f"http://imagedbd{path}", json={}, timeout=30).text.splitlines()
        found = [TypeAdapter(Union[*kinds]).validate_json(line) for line in lines]
        assert {*map(type, found)} >= {*kinds} - {answers.ErrorAnswer}


def test_a_backup_is_told_where_all_is_and_no_more(served: Machine) -> None:
    with session(served) as own, own.post("http://imagedbd/backup", stream=True, timeout=30) as response:
        answers.BackupSource.model_validate_json(next(response.iter_lines()))


@pytest.mark.parametrize("label", _operations())
def test_every_answer_fits_the_page(label: str, fuzzed: BaseSchema, served: Machine) -> None:
    from schemathesis.checks import load_all_checks, not_a_server_error

    # What schemathesis's own decorator makes of each operation, while it collects: seconds for every worker.
    from schemathesis.generation.feedback import FeedbackSources
    from schemathesis.pytest._test_builder import build_operation_test

    load_all_checks()

    @FREELY
    def fits(case: Case) -> None:
        with session(served) as own:
            response = case.call(session=own)
            case.validate_response(response, excluded_checks=[not_a_server_error])
        assert response.status_code not in {500, 501, 502}, response.text

    operation = next(one.ok() for one in fuzzed.get_all_operations() if one.ok().label == label)
    build_operation_test(
        config=fuzzed.config,
        operation=operation,
        test_func=fits,
        given_kwargs={},
        feedback=FeedbackSources(),
    )()


def test_requests_of_every_kind_leave_nothing_behind(fuzzed: BaseSchema, served: Machine) -> None:
    def ask_everything() -> None:
        for operation in fuzzed.get_all_operations():

            @given(case=operation.ok().as_strategy())
            @FREELY
            def ask_often(case: Case) -> None:
                with session(served) as own:
                    case.call(session=own)

            ask_often()

    ask_everything()
    before = footprint(served)
    ask_everything()
    settled(served, before)
