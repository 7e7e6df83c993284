#!/bin/sh
# Hashed requirements from the .in files, without any registry's address.
set -eu
compile() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate "$@"; }
compile requirements/dev.in -o requirements/dev.txt
for name in audit emulator uv node; do compile "requirements/$name.in" -o "requirements/$name.txt"; done
for layer in dependencies api_dependencies relay_dependencies; do
  compile -c requirements/dev.txt "layers/$layer/requirements.in" -o "layers/$layer/requirements.txt"
done
