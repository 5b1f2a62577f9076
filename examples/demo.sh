#!/bin/bash
# Two containers, started by plain `docker run`, find each other by name on the weave network.
#
# Uses the Docker Engine that answers (DOCKER_HOST, or /var/run/docker.sock), as root; if none does, one of its own in
# a network namespace. Takes down what it started, also on failure and on ^C, and leaves everything else alone.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH:/usr/sbin:/sbin
export DOCKER_HOST=${DOCKER_HOST:-unix:///var/run/docker.sock}
engine=$DOCKER_HOST
containers=() image='' scratch='' launched=''

main() {
  [ "$(id -u)" = 0 ] || { echo "demo: needs root" >&2; exit 1; }
  if ! docker version > /dev/null 2>&1; then
    echo "No Docker Engine answers at $DOCKER_HOST: starting one in a network namespace of its own."
    exec python tests/engine/host.py examples/demo.sh
  fi
  trap take_down EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP

  have_image
  web=$(unused web) client=$(unused client)
  launch

  say 'eval "$(weave env)"'
  eval "$(weave env)"
  start "$web"
  start "$client"
  run docker exec "$web" ip address show dev ethwe
  run docker exec "$client" ip address show dev ethwe
  run docker exec "$client" ping -c 3 "$web"
  run weave status
}

say() { printf '\n$ %s\n' "$*"; }
run() { say "$@"; "$@"; }

start() {
  containers+=("$1")
  run docker run -d --name "$1" busybox sleep 3600
}

# A weave that runs already is used as it is.
launch() {
  weave status > /dev/null 2>&1 && return
  scratch=$(mktemp -d /tmp/weave-demo.XXXXXX)
  export WEAVEMW_STATE_DIR=$scratch/state WEAVEMW_RUN_DIR=$scratch/run
  export WEAVEMW_BRIDGE; WEAVEMW_BRIDGE=$(unused_bridge)
  export WEAVE_HTTP_ADDR; WEAVE_HTTP_ADDR=127.0.0.1:$(unused_port 6784)
  launched=yes
  run weave launch -H "unix://$scratch/weave.sock"
}

have_image() {
  docker image inspect busybox > /dev/null 2>&1 && return
  image=busybox
  timeout 30 docker pull -q busybox > /dev/null 2>&1 && return
  echo "busybox can't be pulled: making it from this machine's busybox-static."
  python -c 'import sys; sys.path.insert(0, "tests/engine"); import host; sys.stdout.buffer.write(host.busybox_root())' |
    docker import -c 'CMD ["sh"]' - busybox > /dev/null
}

# A name that no container has: NAME, or NAME2, NAME3, …
unused() {
  local name=$1 n=1
  while docker container inspect "$name" > /dev/null 2>&1; do
    n=$((n + 1)) name=$1$n
  done
  echo "$name"
}

unused_bridge() {
  local name=weave n=1
  while ip link show dev "$name" > /dev/null 2>&1; do
    n=$((n + 1)) name=weave$n
  done
  echo "$name"
}

unused_port() {
  local port=$1
  while [ -n "$(ss -Hltn "sport = :$port")" ]; do
    port=$((port + 1))
  done
  echo "$port"
}

take_down() {
  status=$?
  trap '' INT TERM HUP
  trap - EXIT
  set +e
  export DOCKER_HOST=$engine
  [ ${#containers[@]} = 0 ] || docker rm -f "${containers[@]}" > /dev/null
  [ -z "$launched" ] || weave reset
  [ -z "$image" ] || docker image rm "$image" > /dev/null
  [ -z "$scratch" ] || rm -rf "$scratch"
  exit $status
}

main
