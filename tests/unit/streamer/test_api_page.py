"""The watch page, as far as it can be judged without a browser; test_watch_page.py has one."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256

from tests.unit.streamer.api_jobs import api


def test_the_page_may_run_its_own_script_and_nothing_else() -> None:
    answer = api().client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    parts = answer.headers["content-security-policy"].split("; ")
    policy = {name: value for name, _, value in (part.partition(" ") for part in parts)}
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    for tag in ("script", "style"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = b64encode(sha256(inside.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"


def test_the_page_needs_nothing_from_elsewhere_and_makes_no_html_of_text() -> None:
    html = api().client.get("/").text
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", html)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", html)
    assert not re.search(r"\son\w+=", html.partition("<script>")[0])
    assert not re.search(r"\sstyle=", html)
