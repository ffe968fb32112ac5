# Shared by the scripts of the rig: sourced, never run.
# Standard output is for results (a path, a name); what is going on is told on standard error.
set -euo pipefail

rig=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${FLINKHA_CACHE:-$HOME/.cache/flinkha}
mkdir -p "$cache"

kubernetes_version=$(awk '$1 == "k8s.io/kubernetes" {print $2}' "$rig/go/kubernetes/go.mod")
cluster=flinkha
kubeconfig=$cache/kind/kubeconfig
shared_storage=$cache/shared-storage
pod_range=10.244.0.0/16
service_range=10.96.0.0/16

say() { printf '%s rig/%s: %s\n' "$(date +%T)" "$(basename "$0")" "$*" >&2; }

fail() {
  say "$*"
  exit 1
}

need() {
  command -v "$1" >/dev/null || fail "$1 is missing: $2"
}

# timed WHAT COMMAND...: runs the command, says what it is before and how long it took after.
timed() {
  local what=$1 begin=$SECONDS
  shift
  say "$what"
  "$@"
  say "$what: $((SECONDS - begin)) s"
}

# quietly LOG COMMAND...: output goes to a file of the cache and is shown only on failure.
quietly() {
  local log=$cache/log/$1
  shift
  mkdir -p "$cache/log"
  if ! "$@" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    fail "failed: $*, the whole log is $log"
  fi
}

# Only one process at a time builds a given thing; the others wait and find it built.
lock() {
  mkdir -p "$cache/lock"
  exec {lock_descriptor}>"$cache/lock/$1"
  flock --nonblock "$lock_descriptor" || {
    say "waiting for another run that holds $1"
    flock "$lock_descriptor"
  }
}

# A short name for the contents of files and folders: the key under which what is made of them is cached.
fingerprint() {
  find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sed "s#$rig/##" | sha256sum | cut -c1-12
}

# "registry" where the engine can pull official images, "offline" where they have to be made here.
# RIG=registry or RIG=offline decides it by hand; otherwise one small pull does, once per engine start.
images_from() {
  local answer=$cache/docker/images-from
  if [ -n "${RIG:-}" ]; then
    echo "$RIG"
  elif [ -n "$(find "$answer" -newer /var/run/docker.sock 2>/dev/null)" ]; then
    cat "$answer"
  else
    mkdir -p "$cache/docker"
    say "trying whether the container engine reaches a registry"
    if timeout 20 docker pull --quiet hello-world >/dev/null 2>&1; then echo registry; else echo offline; fi | tee "$answer"
  fi
}

# go_sources MODULE: where Go keeps the sources of a module of rig/go/kubernetes, fetched if they are not there.
go_sources() { (cd "$rig/go/kubernetes" && go mod download -json "$1" | jq -r .Dir); }

# debian_root DIRECTORY PACKAGES: a minimal Debian 12 with these packages, from the mirror that apt uses; kept once made.
debian_root() {
  local mirror made="$1.made"
  [ "$(cat "$made" 2>/dev/null)" = "$2" ] && return
  need debootstrap "run rig/setup"
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
  rm -rf "$1" "$made"
  mkdir -p "$cache/debs"
  timed "a Debian root by debootstrap, in $1 (downloads and installs some hundred packages)" \
    quietly "debootstrap-$(basename "$1").log" nice debootstrap --variant=minbase --cache-dir="$cache/debs" --include="$2" bookworm "$1" "$mirror"
  rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/usr/share/{doc,man,locale,info}/* "$1"/var/log/*.log
  echo "$2" >"$made"
}

# import_directory DIRECTORY IMAGE [CHANGE...]: an image of one layer.
import_directory() {
  local directory=$1 name=$2 change arguments=()
  shift 2
  for change in "$@"; do arguments+=(--change "$change"); done
  tar --numeric-owner -C "$directory" -c . | docker import "${arguments[@]}" - "$name" >/dev/null
}

# compile_go DIRECTORY ARGUMENT...: `go build` in a module, whose path is whole or begins in the rig. Without DWARF, which the linker would throw
# away, and with a compiler that collects its garbage seldom: for kube-apiserver by itself a fifth less time, for memory that is there.
compile_go() {
  local directory=$1
  shift
  need go "the rig builds programs with Go 1.24 or newer (any Go from 1.21 on fetches the right one by itself)"
  (cd "$rig" && cd "$directory" && CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOGC=400 nice go build -trimpath -gcflags all=-dwarf=false "$@")
}

# compile_program SOURCES PROFILE DIRECTORY: the static program of a source tree, with the profile `image` or `release`; prints its path.
# What others wrote is compiled once for all source trees, outside of the clone. The profile `image` is this working tree's: earlier ones have none.
compile_program() {
  local sources=$1 profile=$2 directory=$3 target line flags light=()
  need cargo "install Rust with rustup"
  target=$(rustc --version --verbose | awk '/^host:/ {print $2}')
  while [ "$profile" = image ] && read -r line; do
    light+=(--config "profile.image.$line")
  done < <(awk '/^\[/ {inside = $0 == "[profile.image]"} inside && /=/' "$rig/../Cargo.toml")
  flags='-C target-feature=+crt-static'
  # Packed relocations need 10 kB instead of 700, all of which are read when the program starts, and stay in memory. An earlier glibc in the
  # program does not know them.
  case $(getconf GNU_LIBC_VERSION) in
    "glibc 2."[0-9] | "glibc 2."[12][0-9] | "glibc 2.3"[0-5] | "") ;;
    *) flags+=' -C link-arg=-Wl,-z,pack-relative-relocs' ;;
  esac
  CARGO_TARGET_DIR=$directory CARGO_BUILD_BUILD_DIR=$cache/image-target RUSTFLAGS=$flags \
    timed "compiling flinkha (profile $profile, static)" nice cargo build --quiet --profile "$profile" --locked --bin flinkha --target "$target" \
    "${light[@]}" --manifest-path "$sources/Cargo.toml" >&2
  echo "$directory/$target/$profile/flinkha"
}
