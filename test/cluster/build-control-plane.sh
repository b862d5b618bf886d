#!/usr/bin/env bash
# Builds a real Kubernetes control plane (kube-apiserver, kube-controller-manager, kube-scheduler) from Debian
# bookworm's own source package and installs etcd from Debian, so that the tests of @scrim/dataops talk to the
# software that runs in clusters. Needs root (apt), about 10 minutes of two cores and 3 GB while it builds.
# The result is kept outside the checkout: ${SCRIM_CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/scrim-cluster}/bin.
# Does nothing where the binaries are there already. Prints the directory of the binaries on its last line.
set -euo pipefail

cache="${SCRIM_CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/scrim-cluster}"
bin="$cache/bin"
work="$cache/build"
binaries=(kube-apiserver kube-controller-manager kube-scheduler)
recipe=1 # raise it when the recipe changes, so that kept binaries are built again

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9 # two runs at once: the second waits and finds the first one's binaries

install_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

install_packages etcd-server
command -v kubectl >/dev/null || install_packages kubernetes-client # the tests read objects back with kubectl

complete=true
for name in "${binaries[@]}"; do [[ -x "$bin/$name" ]] || complete=false; done
if $complete && [[ "$(cat "$bin/recipe" 2>/dev/null)" == "$recipe" ]]; then
  echo "$bin"
  exit 0
fi

install_packages golang-1.19-go rsync dpkg-dev make golang-github-modern-go-reflect2-dev

# Debian's source package, through a list of its own: the machine's apt settings stay as they are.
rm -rf "$work" && mkdir -p "$work/lists/partial" && cd "$work"
mirror="$(sed -nE 's/^(URIs:|deb) +(https?:[^ ]*debian\/?)( .*)?$/\2/p' \
  /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v security | head -n1 || true)"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb-src [signed-by=$keyring] ${mirror:-http://deb.debian.org/debian} bookworm main" >"$work/source.list"
apt_options=(-o "Dir::Etc::sourcelist=$work/source.list" -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::State::lists=$work/lists" -o APT::Sandbox::User=root)
apt-get "${apt_options[@]}" -qq update >&2
apt-get "${apt_options[@]}" -qq source kubernetes >&2
cd "$work"/kubernetes-*/

# The vendored reflect2 1.0.1 reaches into Go's runtime in a way that Go 1.18 changed; 1.0.2 does not.
reflect2=vendor/github.com/modern-go/reflect2
rm -f "$reflect2"/*.go "$reflect2"/*.s
cp /usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} "$reflect2/"

export PATH="/usr/lib/go-1.19/bin:$PATH" HOME="$work/home" GOCACHE="$work/go-cache" GOPATH="$work/gopath"
export CGO_ENABLED=0 GOPROXY=off
mkdir -p "$HOME"
export KUBE_GIT_VERSION_FILE="$work/version"
cat >"$KUBE_GIT_VERSION_FILE" <<'VERSION'
KUBE_GIT_COMMIT='debian'
KUBE_GIT_TREE_STATE='archive'
KUBE_GIT_VERSION='v1.20.2'
KUBE_GIT_MAJOR='1'
KUBE_GIT_MINOR='20'
VERSION
make WHAT="$(printf 'cmd/%s ' "${binaries[@]}")" GOLDFLAGS="-s -w" >&2
mkdir -p "$bin"
for name in "${binaries[@]}"; do install -m 0755 "_output/bin/$name" "$bin/$name"; done
echo "$recipe" >"$bin/recipe"
cd "$cache"
rm -rf "$work"
echo "$bin"
