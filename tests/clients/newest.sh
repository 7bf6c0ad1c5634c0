#!/usr/bin/env bash
# Runs the tests of this folder with the newest releases of the clients, instead of those that pyproject.toml names.
#
#   bash tests/clients/newest.sh [arguments of pytest]
#
# The build keeps to exact versions, so that it does not change by itself. Run this before raising them: it prints which
# have changed, and tests in an environment of its own, which it removes.
set -euo pipefail
cd "$(dirname "$0")/../.."
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1

clients=$(python3.11 -c '
import tomllib
with open("pyproject.toml", "rb") as file:
    extras = tomllib.load(file)["project"]["optional-dependencies"]
print(*(each.partition("==")[0] for each in extras["clients"]))')

python3.11 -m venv "$place/env"
# shellcheck disable=SC2086  # one word for each client
"$place/env/bin/pip" install -q -e '.[test]' $clients
for client in $clients; do
    newest=$("$place/env/bin/pip" show "$client" | sed -n 's/^Version: //p')
    used=$(sed -n "s/.*\"$client==\([^;\"]*\).*/\1/p;T;q" pyproject.toml)  # another extra may name it, too
    [ "$newest" = "$used" ] && echo "$client $used" || echo "$client $used -> $newest"
done
# The npm packages, too. Without its copy of the lock file, install.sh brings the named versions back.
export PATH=$place/env/bin:$PATH
(cd tests/clients/node && rm -f node_modules/.installed-lock.json \
    && npm install --no-save --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error \
        ai6@npm:ai@6 ai7@npm:ai@7 @ag-ui/client@latest openai@latest && npm ls --depth=0)
"$place/env/bin/python" -m pytest tests/clients -n 2 "$@"
