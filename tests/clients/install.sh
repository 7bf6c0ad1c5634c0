#!/usr/bin/env bash
# Installs the npm packages of these tests, at the versions of the lock file. Does nothing if they are installed.
# Node comes with the extra 'clients': PATH must begin with the environment's bin directory.
set -euo pipefail
cd "$(dirname "$0")/node"
installed=node_modules/.installed-lock.json
cmp -s package-lock.json "$installed" && exit
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
cp package-lock.json "$installed"
