#!/bin/sh
# A Slurm cluster of this one machine, for trying launcher=slurm where there is none:
#   apt-get install slurm-wlm munge && scripts/slurm_node.sh start; scripts/slurm_node.sh stop
# As root. It replaces /etc/slurm/slurm.conf; logs and state are in /tmp/slurm.
set -eu
state=/tmp/slurm
case "${1:-}" in
stop)
    pkill -x slurmd || true
    pkill -x slurmctld || true
    exit 0
    ;;
start) ;;
*)
    echo "usage: $0 start|stop" >&2
    exit 2
    ;;
esac

mkdir -p "$state/ctld" "$state/d" /run/munge /var/log/munge /var/lib/munge
chown -R munge: /run/munge /var/log/munge /var/lib/munge /etc/munge
[ -s /etc/munge/munge.key ] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 2>/dev/null
chown munge: /etc/munge/munge.key
chmod 400 /etc/munge/munge.key
pgrep -x munged >/dev/null || su munge -s /bin/sh -c /usr/sbin/munged

host=$(hostname -s)
mkdir -p /etc/slurm
cat >/etc/slurm/slurm.conf <<EOF
ClusterName=single
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/d
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
KillWait=30
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
EOF
pgrep -x slurmctld >/dev/null || slurmctld -c
pgrep -x slurmd >/dev/null || slurmd
for _ in $(seq 30); do
    if sinfo -h -o %t 2>/dev/null | grep -Eq 'idle|mix|alloc'; then
        sinfo
        exit 0
    fi
    sleep 1
done
sinfo || true
tail -5 "$state"/slurmctld.log "$state"/slurmd.log >&2
exit 1
