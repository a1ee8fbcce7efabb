# Sourced by ops/up, ops/test and ops/bench: makes .venv with exactly what ops/locks says, and does nothing
# when it already is so. Everything it says goes to standard error. Sets ROOT, PYTHON (the environment's).

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
PYTHON="$VENV/bin/python"
STAMP="$VENV/.penstock"
UV_VERSION=0.13.8
# PyPI's torch is the CUDA build; PyTorch's own index has the one for CPUs.
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "penstock: $*"
  exit 1
}

seconds_since() { # tenths, from microseconds
  local tenths=$(((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}) / 100000))
  printf '%d.%d s' $((tenths / 10)) $((tenths % 10))
}

# step TEXT COMMAND...: run it, showing the time while it works and how long it took.
step() {
  local text=$1 began=$EPOCHREALTIME status=0 clock=
  shift
  if [ -t 2 ]; then
    while :; do
      printf '\r  %s %s ' "$text" "$(seconds_since "$began")" >&2
      sleep 0.2
    done &
    clock=$!
    trap 'kill "$clock" 2>/dev/null' EXIT # a step may end the script
  fi
  "$@" >&2 || status=$?
  if [ -n "$clock" ]; then
    kill "$clock" 2>/dev/null
    wait "$clock" 2>/dev/null || true
    trap - EXIT
    printf '\r\033[K' >&2
  fi
  ((status == 0)) && say "✓ $text $(seconds_since "$began")" || say "✗ $text $(seconds_since "$began")"
  return $status
}

engine_build() {
  local build=${PENSTOCK_ENGINE_BUILD:-}
  if [ -z "$build" ]; then
    build=cpu
    if [ -e /dev/nvidia0 ] || { command -v nvidia-smi && nvidia-smi -L; } >/dev/null 2>&1; then build=gpu; fi
  fi
  case $build in
    cpu | gpu) printf '%s' "$build" ;;
    *) fail "PENSTOCK_ENGINE_BUILD is '$build': it must be cpu or gpu" ;;
  esac
}

wanted() {
  printf '%s ' "$1"
  cat "$ROOT/ops/locks/$1.txt" "$ROOT/pyproject.toml" | sha256sum
}

find_python() {
  local candidate
  for candidate in "${PENSTOCK_PYTHON:-}" python3.11 python3 python; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      printf '%s' "$candidate"
      return
    fi
  done
  fail "Python 3.11 was not found (vLLM's wheels are locked for it): install it, for example with" \
    "\`apt install python3.11 python3.11-venv\`, \`dnf install python3.11\` or \`pyenv install 3.11\`," \
    "or name it with PENSTOCK_PYTHON=/path/to/python3.11"
}

check_machine() {
  local build=$1 need_gib=5 free_gib
  [ "$build" = gpu ] && need_gib=16
  [ "$(uname -sm)" = "Linux x86_64" ] ||
    fail "Penstock's locks are for Linux on x86_64 and this is $(uname -sm): run it in a container or a virtual machine of that kind"
  [ -w "$ROOT" ] || fail "$ROOT is not writable for $(id -un): clone Penstock as this account, or run as $(stat -c %U "$ROOT")"
  free_gib=$(($(df -Pk "$ROOT" | awk 'NR == 2 { print $4 }') / 1048576))
  [ -x "$VENV/bin/uv" ] || ((free_gib >= need_gib)) ||
    fail "the disk of $ROOT has $free_gib GiB free and the $build build of the engine needs $need_gib: free some space, or clone to another disk"
}

make_venv() {
  local python
  python=$(find_python) || exit 1
  if ! "$python" -m venv "$VENV" >"$VENV/.venv.log" 2>&1; then
    tail -n 3 "$VENV/.venv.log" >&2
    fail "$python cannot make a virtual environment: install its venv module (\`apt install python3.11-venv\`)"
  fi
}

# uv asks neither pip's configuration nor its variables where packages come from: hand both on.
use_pip_sources() {
  local line name
  while IFS= read -r line; do
    name=${line%%=*}
    [ -n "${!name:-}" ] || export "${line?}"
  done < <("$PYTHON" "$ROOT/ops/pip_sources.py")
}

# Say why an installation failed, as far as can be found out, and end.
explain() {
  local free_mib
  free_mib=$(($(df -Pk "$VENV" | awk 'NR == 2 { print $4 }') / 1024))
  ((free_mib > 200)) || fail "the disk of $ROOT is full: free some space, then run this again"
  if ! "$PYTHON" "$ROOT/ops/pip_sources.py" --reachable; then
    fail "no network, or the package index above does not answer: connect, or point pip at a mirror" \
      "(\`pip config set global.index-url URL\`), then run this again"
  fi
  fail "$1 could not be installed; the lines above say why. Running this again continues where it stopped"
}

install_torch() {
  local torch
  torch=$(grep -o '^torch==[^ ;]*+cpu' "$1") || return 0 # the GPU build takes PyPI's
  "$PYTHON" -c "from importlib.metadata import version; assert 'torch==' + version('torch') == '$torch'" 2>/dev/null && return
  # A machine that is given its own package folder or index may well have it there.
  if [ -n "${UV_FIND_LINKS:-}${UV_INDEX:-}${UV_DEFAULT_INDEX:-}" ]; then
    "${INSTALL[@]}" --no-deps "$torch" 2>"$VENV/.torch.log" && return
  fi
  "${INSTALL[@]}" --no-deps "$torch" "--index-url=$TORCH_CPU_INDEX"
}

install_lock() {
  if [ "${INSTALL[0]}" = "$VENV/bin/uv" ]; then
    # From an environment that uv made, sync would remove uv itself.
    local way=(sync)
    grep -q '^uv = ' "$VENV/pyvenv.cfg" && way=(install --no-deps --requirements)
    "$VENV/bin/uv" pip "${way[@]}" "$1" --quiet --python "$PYTHON"
  else
    # pip wants a hash for every line or for none, and torch (above) has none.
    grep -v '^torch==.*+cpu' "$1" >"$VENV/.lock.txt" && "${INSTALL[@]}" --no-deps -r "$VENV/.lock.txt"
  fi
}

install_all() {
  local build=$1 lock="$ROOT/ops/locks/$1.txt"
  check_machine "$build"
  mkdir -p "$VENV" || fail "$VENV cannot be made"
  exec 9>"$VENV/.installing"
  if command -v flock >/dev/null && ! flock -n 9; then
    say "  waiting for another installation in $VENV ..."
    flock 9
    [ "$(cat "$STAMP" 2>/dev/null)" != "$(wanted "$build")" ] || return 0
  fi
  [ -x "$PYTHON" ] || step "Python environment" make_venv
  use_pip_sources
  INSTALL=("$VENV/bin/uv" pip install --quiet --python "$PYTHON")
  if [ ! -x "$VENV/bin/uv" ]; then
    "$PYTHON" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m ensurepip >/dev/null 2>&1
    if ! step "installer (uv $UV_VERSION)" "$PYTHON" -m pip install -qq --disable-pip-version-check "uv==$UV_VERSION"; then
      "$PYTHON" "$ROOT/ops/pip_sources.py" --reachable 2>/dev/null || explain "uv"
      say "  uv cannot be had here; pip does the same in about four minutes"
      INSTALL=("$PYTHON" -m pip install -q --disable-pip-version-check)
    fi
  fi
  step "PyTorch" install_torch "$lock" || explain "PyTorch"
  step "packages with the engine's $build build" install_lock "$lock" || explain "the packages of ops/locks/$build.txt"
  step "Penstock itself" "${INSTALL[@]}" --no-deps -e "$ROOT" || explain "Penstock itself"
  wanted "$build" >"$STAMP"
  exec 9>&-
}

environment() {
  local build
  build=$(engine_build) || exit 1
  [ "$(cat "$STAMP" 2>/dev/null)" = "$(wanted "$build")" ] || install_all "$build"
}
