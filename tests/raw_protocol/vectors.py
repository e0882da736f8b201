"""Folds the cases of examples/patches.json with examples/fold.py, and prints one line of JSON for each that comes out wrong.

usage: vectors.py    prints at the end how many cases there were
"""

import json
import pathlib
import sys

import bson
from bson import json_util

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))
from fold import Refused, fold  # noqa: E402

cases = json_util.loads((EXAMPLES / "patches.json").read_text(), json_options=json_util.CANONICAL_JSON_OPTIONS)
for case in cases:
    before = bson.encode(case["state"])
    try:
        found = fold(case["state"], {"op": "update", **case})
    except Refused:
        found = None
    expected = None if case.get("refused") else case["result"]
    same = (found is None) == (expected is None) and (found is None or bson.encode(found) == bson.encode(expected))
    if not same or bson.encode(case["state"]) != before:
        print(json.dumps({"wrong": case["name"], "found": repr(found)}))
print(json.dumps({"cases": len(cases)}))
