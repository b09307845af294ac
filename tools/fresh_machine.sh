#!/usr/bin/env bash
# Tries ./run and ./test as on a fresh machine: in a bare Debian root with nothing but apt in it.
#   tools/fresh_machine.sh [--user] [--keep] [--bare] [-- OPTIONS OF ./run]
#   --user   as a user with sudo instead of root
#   --keep   leave the root in place and say where
#   --bare   only make the root and show that it works
# For a short trial: tools/fresh_machine.sh -- --set train.steps=20
# Runs as root (or under sudo); apt and the network are set up inside as they are on this machine.
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)

as_user=0 keep=0 bare=0
while (($#)); do
  case $1 in
    --user) as_user=1 ;;
    --keep) keep=1 ;;
    --bare) bare=1 ;;
    --) shift; break ;;
    *) sed -n '2,8s/^# //p' "$0" >&2; exit 2 ;;
  esac
  shift
done
((EUID == 0)) || { echo "fresh_machine: run it as root" >&2; exit 1; }
command -v mmdebstrap >/dev/null ||
  { echo "fresh_machine: apt-get install mmdebstrap" >&2; exit 1; }

dir=$(mktemp -d -t adder-fresh.XXXXXX)
root=$dir/root
clean_up() {
  if ((keep)); then echo "the root is left in $root"; else rm -rf "$dir"; fi
}
trap clean_up EXIT

# The root fetches packages as this machine does: from the same sources, with apt's own settings.
mapfile -t sources < <(find /etc/apt/sources.list /etc/apt/sources.list.d \
  -name '*.list' -size +0 -o -name '*.sources' -size +0 2>/dev/null | sort)
apt-config dump --format '%F "%v";%n' |
  grep -E '^Acquire::(http|https|Retries|Check|.*[Pp]roxy)' >"$dir/apt.conf" || : >"$dir/apt.conf"
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
start=$SECONDS
mmdebstrap --quiet --variant=apt --aptopt="$dir/apt.conf" "$suite" "$root" "${sources[@]}"
echo "a bare $suite root of $(du -sm "$root" | cut -f1) MiB in $((SECONDS - start)) s"
cp /etc/resolv.conf "$root/etc/resolv.conf"

git clone -q "$repo" "$root/adder"

# inside WORDS...: a command in the root. The mounts live in a mount namespace of their own and die
# with the command, so that no rm can reach through them and nothing is left behind.
inside() {
  unshare --mount --pid --fork --kill-child bash -euc '
    root=$1; shift
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount --make-rslave "$root/dev"
    exec chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
      HOME="$HOME" LANG=C.UTF-8 TERM="${TERM:-dumb}" ${http_proxy:+http_proxy="$http_proxy"} \
      ${https_proxy:+https_proxy="$https_proxy"} "$@"' inside "$root" "$@"
}

who=()
if ((as_user)); then
  inside sh -c 'apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y sudo
    useradd -m tester && echo "tester ALL=(ALL) NOPASSWD:ALL" >/etc/sudoers.d/tester
    chown -R tester: /adder' >/dev/null
  who=(runuser -u tester -- env HOME=/home/tester)
fi

# timed NAME WORDS...
timed() {
  local name=$1 begin=$SECONDS
  shift
  echo "== $name"
  inside "${who[@]}" "$@"
  echo "== $name: $((SECONDS - begin)) s"
}

if ((bare)); then
  timed "a look inside" sh -c 'id -un; nproc; . /etc/os-release; echo "$PRETTY_NAME"; ls /adder'
  exit 0
fi
timed "./run, first" /adder/run "$@"
timed "./run, again" /adder/run "$@"
timed "./test, first" /adder/test
timed "./test, again" /adder/test
