#!/usr/bin/env bash
# Builds the site into build/site. It needs the extra `docs` and no network; any warning fails the build.
# PYTHON names the interpreter that has the extra, .venv/bin/python unless it is set.
set -euo pipefail
cd "$(dirname "$0")/.."
"${PYTHON:-.venv/bin/python}" -m zensical build --clean --strict
if grep -rlE '<(script|link|img|iframe)[^>]+(src|href)="?(https?:)?//' build/site --include='*.html'; then
    echo "These pages load something from another server. The site must be readable without a network." >&2
    exit 1
fi
