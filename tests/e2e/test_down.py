"""`make down` leaves nothing behind but logs: shown on an emulator that ran a function."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from pathlib import Path

from local_stack import emulator
from local_stack.config import on_free_ports
from local_stack.deployment import client
from local_stack.processes import Processes
from local_stack.up import down

FUNCTION = "leaves-a-folder"


def test_down_removes_the_folders_of_the_emulators_workers(tmp_path: Path) -> None:
    config = on_free_ports(tmp_path)
    emulator.start(config, Processes(config))
    try:
        trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        role = client(config, "iam").create_role(
            RoleName=FUNCTION, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        )
        functions = client(config, "lambda")
        functions.create_function(
            FunctionName=FUNCTION,
            Runtime="python3.13",
            Role=role["Role"]["Arn"],
            Handler="main.handler",
            Code={"ZipFile": _zipped("main.py", "def handler(event, context):\n    return 'done'\n")},
        )
        answer = functions.invoke(FunctionName=FUNCTION, Payload=b"{}")
        assert answer["Payload"].read() == b'"done"'
        assert _workers(config.temporary), "the emulator keeps its workers elsewhere: this test shows nothing"
        assert not _workers(Path(tempfile.gettempdir()))
    finally:
        stopped = down(config)
    assert stopped == ["emulator"]
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    assert not list(Path(tempfile.gettempdir()).glob(f"ministack-{config.emulator_port}*"))


def _workers(folder: Path) -> list[Path]:
    return list(folder.glob(f"ministack-lambda-{FUNCTION}-*"))


def _zipped(name: str, text: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, text)
    return packed.getvalue()
