#!/usr/bin/env bash
# Builds what the tests of S3 transfers run: rclone, in the version of the transfer Jobs' image, with the local and the
# S3 backend and the commands the Jobs use; and versitygw, an S3 server over a directory. Both from source through the
# Go module proxy, pinned. Needs Go 1.21 or later (it fetches the toolchain a module asks for), about 4 minutes of two
# cores once. The result is kept outside the checkout, beside the control plane's binaries:
# ${SCRIM_CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/scrim-cluster}/s3. Prints that directory on its last line.
set -euo pipefail

rclone=v1.68.2
versitygw=v1.8.0
cache="${SCRIM_CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/scrim-cluster}"
bin="$cache/s3"
recipe="rclone $rclone, versitygw $versitygw, 1" # kept binaries of another recipe are built again

mkdir -p "$cache"
exec 9>"$cache/s3.lock"
flock 9 # two runs at once: the second waits and finds the first one's binaries

if [[ -x "$bin/rclone" && -x "$bin/versitygw" && "$(cat "$bin/recipe" 2>/dev/null)" == "$recipe" ]]; then
  echo "$bin"
  exit 0
fi
command -v go >/dev/null || { echo 'build-s3-tools.sh: Go 1.21 or later is needed (https://go.dev/dl)' >&2; exit 1; }

rm -rf "$bin" && mkdir -p "$bin"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
export CGO_ENABLED=0
cat >main.go <<'GO'
package main

import (
	_ "github.com/rclone/rclone/backend/local"
	_ "github.com/rclone/rclone/backend/s3"
	"github.com/rclone/rclone/cmd"
	_ "github.com/rclone/rclone/cmd/copy"
	_ "github.com/rclone/rclone/cmd/copyto"
	_ "github.com/rclone/rclone/cmd/sync"
)

func main() { cmd.Main() }
GO
go mod init scrim.example/rclone >&2
go get "github.com/rclone/rclone@$rclone" >&2
go mod tidy >&2
go build -ldflags '-s -w' -o "$bin/rclone" . >&2
GOBIN="$bin" go install -ldflags '-s -w' "github.com/versity/versitygw/cmd/versitygw@$versitygw" >&2
echo "$recipe" >"$bin/recipe"
echo "$bin"
