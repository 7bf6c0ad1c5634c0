"""Changes one statement of the package at a time, and checks whether the test suite fails.

::

    python tests/mutation/mutate.py --count 100 --seed 1               # run a sample, print the survivors
    python tests/mutation/mutate.py --count 100 --seed 1 --again       # run the survivors again, with new tests
    python tests/mutation/mutate.py --count 100 --only rxllm/wire/     # a sample of one directory

Each mutant runs in a copy of the tree, in two passes: with the test files that mention its module most, up to the first
failure; then, if it survives, with the rest of the suite. README.md in this directory has the details.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from attrs import asdict
from mutants import Module, Mutant

ROOT = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
MAPPED = 6  # test files in the first pass
HANG = 1800  # seconds for one run of pytest; each test has its own limit, from setup.cfg


def rank(seed: int, *key: str) -> str:
    """A random number that depends only on its key, so that an edit elsewhere does not change a sample."""
    return hashlib.sha256("\0".join((str(seed), *key)).encode()).hexdigest()


def sample(root: Path, count: int, seed: int, only: str) -> list[Mutant]:
    """A sample of mutants: first a statement is chosen, each with the same chance, and then one change of it."""
    mutants: dict[tuple[str, ...], Mutant] = {}
    for path in sorted((root / "rxllm").rglob("*.py")):
        if path.relative_to(root).as_posix().startswith(only):
            for changes in Module(root, path).mutants():
                mutant = min(changes, key=lambda mutant: rank(seed, *mutant.key))
                mutants.setdefault(mutant.key, mutant)
    return sorted(mutants.values(), key=lambda mutant: rank(seed, *mutant.key[:3]))[:count]


def tests_for(root: Path, file: str) -> tuple[list[str], list[str]]:
    """The test files that mention a module most, and the other ones, both sorted by the number of mentions.

    A mention counts less, if many test files mention the same name.
    """
    texts = {path.relative_to(root).as_posix(): path.read_text() for path in (root / "tests").rglob("test_*.py")}
    room, stem = Path(file).parent.name, Path(file).stem.strip("_")
    scores: Counter[str] = Counter()
    for name in {stem, *re.findall(r"(?m)^(?:async def|def|class) (\w+)", (root / file).read_text())}:
        mentions = {path: len(re.findall(rf"\b{name}\b", text)) for path, text in texts.items()}
        files = sum(map(bool, mentions.values()))
        scores.update({path: min(count, 20) / files for path, count in mentions.items() if count})
    for path in map(Path, texts):
        scores[path.as_posix()] += 100 * (path.stem == f"test_{stem}") + 2 * (path.parent.name == room)
    ordered = [path for path, _ in scores.most_common()]
    return ordered[:MAPPED], ordered[MAPPED:]


def noticed(root: Path, tests: list[str]) -> str:
    """The first test that fails, or ``""``."""
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "--tb=no", "-rfE", *tests]
    with tempfile.TemporaryFile("w+") as output:  # a pipe would stay open until the last grandchild ends
        pytest = subprocess.Popen(
            command, cwd=root, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            code = pytest.wait(HANG)
        except subprocess.TimeoutExpired:
            os.killpg(pytest.pid, signal.SIGKILL)
            pytest.wait()
            return "(hung)"
        output.seek(0)
        said = output.read()
    if code == 0:
        return ""
    found = re.search(r"(?m)^(?:FAILED|ERROR) (\S+)", said)
    return found[1] if found else f"(pytest ended with {code}: {said[-200:]})"


def tried(root: Path, mutant: Mutant, *, mapped: bool) -> str:
    """The test that notices the mutant, or ``""``: among the test files of its module, or among the others."""
    path = root / mutant.file
    original = path.read_bytes()
    path.write_bytes(original[: mutant.start] + mutant.after.encode() + original[mutant.end :])
    try:
        return noticed(root, tests_for(root, mutant.file)[not mapped])
    finally:
        path.write_bytes(original)


def main() -> int:
    """Runs the sample. Returns 1 if a mutant survives that is not declared equivalent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="number of mutants")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sample")
    parser.add_argument("--only", default="", help="only files whose path starts with this")
    parser.add_argument(
        "--state", type=Path, help="file of the results, as JSON lines (default: in the temporary directory)"
    )
    parser.add_argument("--mapped", action="store_true", help="skip the second pass")
    parser.add_argument("--again", action="store_true", help="run the survivors again")
    parser.add_argument("--list", action="store_true", help="print the sample only")
    options = parser.parse_args()
    state = options.state or Path(tempfile.gettempdir()) / f"rxllm-mutation-{options.seed}.jsonl"

    def key_of(record: dict[str, str]) -> tuple[str, ...]:
        return record["file"], record["function"], record["statement"], record["change"]

    equivalent = set(map(key_of, tomllib.loads(EQUIVALENT.read_text()).get("mutant", ())))
    results: dict[tuple[str, ...], dict[str, Any]] = {}  # the latest, by mutant
    for line in state.read_text().splitlines() if state.exists() else ():
        results[key_of(json.loads(line))] = json.loads(line)
    if options.again:
        results = {key: result for key, result in results.items() if result["noticed_by"]}

    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "tree"
        shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        mutants = sample(root, options.count, options.seed, options.only)
        if options.list:
            print("\n".join(" | ".join(mutant.key) for mutant in mutants))
            return 0
        if not state.exists() and (failure := noticed(root, [])):
            print(f"The suite fails without a mutant, at {failure}. Fix this first.", file=sys.stderr)
            return 2
        for mapped in (True, False)[: 2 - options.mapped]:
            for mutant in mutants:
                known = results.get(mutant.key)
                wanted = known is None if mapped else known and known["mapped"] and not known["noticed_by"]
                if mutant.key in equivalent or not wanted:
                    continue
                result = {**asdict(mutant), "mapped": mapped, "noticed_by": tried(root, mutant, mapped=mapped)}
                results[mutant.key] = result
                with state.open("a") as lines:
                    lines.write(json.dumps(result) + "\n")

    counted = [mutant for mutant in mutants if mutant.key not in equivalent]
    survivors = [mutant for mutant in counted if not results[mutant.key]["noticed_by"]]
    print(
        f"mutants={len(mutants)} equivalent={len(mutants) - len(counted)} "
        f"noticed={len(counted) - len(survivors)} survived={len(survivors)}"
    )
    for each in survivors:
        print(f"{each.file} | {each.function} | {each.statement} | {each.kind}: {each.change}")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
