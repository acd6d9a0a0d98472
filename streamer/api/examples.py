"""Answers for the OpenAPI document, as they come from a running service."""

from __future__ import annotations

JOB = {
    "id": "job-c5kkznxq3s6lkftl",
    "state": "running",
    "url": "https://example.com/video.mp4",
    "created_at": "2026-11-24T17:40:58.826000Z",
    "ended_at": None,
    "error": None,
    "questions": [{"id": "default", "prompt": "Describe what happens.", "when": "on_change"}],
    "fps": 2.0,
    "chunk_s": 2.0,
    "pipeline": [{"name": "rlt", "change": "robust", "anchor": "head", "symmetric": True}],
    "live": False,
    "connected": None,
    "source_error": None,
    "lag_s": 2.0,
    "level": 0,
    "reconnects": 0,
    "gaps": 0,
    "skipped": 0,
    "levels": 0,
    "chunks": 12,
    "captions": 7,
    "unchanged": 5,
    "asked": 7,
    "t1": 24.0,
    "patches": {"total": 5760, "kept": 1444},
    "tokens": {"dense": 1440, "kept": 361},
    "workers": {"decode": "decode-1", "tokenize": "tokenize-1", "caption": "caption-1"},
}

EVENTS = """\
retry: 1000

event: state
data: {"job":"job-c5kkznxq3s6lkftl","state":"running","error":null}

id: 12-0
event: caption
data: {"id":"12-0","event":"caption","job":"job-c5kkznxq3s6lkftl","chunk":12,"t0":22.0,"t1":24.0,\
"question":"default","text":"The camera is still. Nothing moves.","input_tokens":31,\
"dense_tokens":120,"output_tokens":8}

event: end
data: {"job":"job-c5kkznxq3s6lkftl","state":"ended","error":null}

"""
