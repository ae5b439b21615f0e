#!/usr/bin/env bash
# A SLURM cluster of this one machine, to try launch/slurm.py on a real one; needs root. Tried on Debian 12 (SLURM 22.05):
#
#   apt-get install -y --no-install-recommends slurm-wlm slurmdbd mariadb-server munge
#   eval "$(launch/slurm_one_node.sh start)"
#   jaxrl-srpo prepare --datasets=pointmaze/umaze --seeds=0:4 --members_per_population=2 --out=runs/umaze
#   python launch/slurm.py runs/umaze --workers=2 --minutes=30
#   launch/slurm_one_node.sh stop
set -euo pipefail

folder=${SLURM_ONE_NODE:-/var/lib/slurm_one_node}
host=$(hostname -s)
export SLURM_CONF=$folder/slurm.conf

# What lies in the folder is run, read and killed as root: nobody else may have made it or write to it.
own_folder() {
  if [ -L "$folder" ] || { [ -e "$folder" ] && [ "$(stat -c '%u %a' "$folder")" != "$(id -u) 700" ]; }; then
    echo "slurm_one_node: $folder must be a folder of this user with mode 700; remove it or set SLURM_ONE_NODE" >&2
    exit 2
  fi
  mkdir -p -m 700 "$folder"
}

configure() {
  mkdir -p "$folder"/{state,spool,database} /run/munge
  chown munge: /run/munge
  cat > "$folder/slurm.conf" <<END
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=$host
JobAcctGatherType=jobacct_gather/linux
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
  cat > "$folder/slurmdbd.conf" <<END
DbdHost=$host
SlurmUser=root
AuthType=auth/munge
PidFile=$folder/slurmdbd.pid
LogFile=$folder/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
END
  chmod 600 "$folder/slurmdbd.conf"
}

# Waits until a command succeeds.
until_ready() {
  for _ in $(seq 60); do
    if "$@" > /dev/null 2>&1; then return; fi
    sleep 0.5
  done
  echo "slurm_one_node: '$*' still fails after 30 s; see $folder/*.log" >&2
  exit 1
}

start() {
  configure
  pgrep -x munged > /dev/null || runuser -u munge -- munged
  if ! mariadb -e 'select 1' > /dev/null 2>&1; then
    # Without this, slurmdbd and submitit could not tell a job that died from one that waits.
    mariadb-install-db --user=root --datadir="$folder/database" > "$folder/mariadb.log" 2>&1
    mkdir -p /run/mysqld
    mariadbd --user=root --datadir="$folder/database" --pid-file="$folder/mariadb.pid" --skip-networking \
      >> "$folder/mariadb.log" 2>&1 &
  fi
  until_ready mariadb -e 'select 1'
  slurmdbd
  until_ready sacctmgr -n show cluster
  sacctmgr -i add cluster one > /dev/null 2>&1 || true
  slurmctld -c
  slurmd
  until_ready sinfo -h -t idle -o %N
  echo "export SLURM_CONF=$folder/slurm.conf"
}

stop() {
  for daemon in slurmd slurmctld slurmdbd mariadb; do
    if [ -f "$folder/$daemon.pid" ]; then kill "$(cat "$folder/$daemon.pid")" || true; fi
  done
}

case "${1:-}" in
  start) own_folder; start ;;
  stop) own_folder; stop ;;
  *) echo "usage: launch/slurm_one_node.sh start|stop" >&2; exit 2 ;;
esac
