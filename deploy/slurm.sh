#!/usr/bin/env bash
# One sweep as a Slurm job: a Ray cluster for the time of the job. Requeued before the time limit,
# it goes on where it was.
#
#   sbatch --nodes=4 deploy/slurm.sh sweep.yaml [KEY=VALUE...]
#
#SBATCH --job-name=prunesweep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@180
set -euo pipefail

: "${1:?name a specification: sbatch deploy/slurm.sh sweep.yaml}"

# NAME=VALUE lines: the ledger, MLflow, the keys of the artifact store. Readable by you alone.
environment=${PRUNESWEEP_ENVIRONMENT:-$HOME/.config/prunesweep.env}
if [[ -e $environment ]]; then
  set -o allexport
  # shellcheck source=/dev/null
  . "$environment"
  set +o allexport
fi

# A token for this job, in a folder that all nodes share.
umask 077
folder=$HOME/.prunesweep/job-$SLURM_JOB_ID
mkdir -p "$folder"
od --address-radix=n --format=x1 --read-bytes=32 /dev/urandom | tr --delete ' \n' >"$folder/token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$folder/token
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head --lines=1)
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1; exit}')
port=$((20000 + SLURM_JOB_ID % 10000))

# Sockets and logs, on each node's own disk: a name that nobody knows before, a folder only you enter.
temporary=${PRUNESWEEP_TEMPORARY:-}
made=
if [[ -z $temporary ]]; then
  made=$(srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" mktemp --directory /tmp/ray-XXXXXXXX)
  temporary=$made/ray # which Ray opens to all; what it lies in stays closed
fi
gpus=${SLURM_GPUS_PER_TASK:-0}

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --block --node-ip-address="$head_ip" --port="$port" \
  --dashboard-host=127.0.0.1 --dashboard-port="$((port + 10000))" --temp-dir="$temporary" \
  --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" &
nodes=($!)

# Until the head listens.
for _ in {1..120}; do
  if (: <>"/dev/tcp/$head_ip/$port") 2>/dev/null; then break; fi
  sleep 1
done

if ((SLURM_JOB_NUM_NODES > 1)); then
  others=$((SLURM_JOB_NUM_NODES - 1))
  if [[ -n $made ]]; then # fails where somebody was faster
    srun --overlap --nodes="$others" --ntasks="$others" --ntasks-per-node=1 --exclude="$head" \
      mkdir --mode=700 "$made"
  fi
  srun --overlap --nodes="$others" --ntasks="$others" --ntasks-per-node=1 --exclude="$head" \
    ray start --block --address="$head_ip:$port" \
    --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" &
  nodes+=($!)
fi

prunesweep run "$@" --address "$head_ip:$port" --wait 90 &
driver=$!

# Slurm says so three minutes before the limit, or when others need the nodes: the driver puts the
# ledger in order, and the job queues again.
requeue=
trap 'requeue=yes; kill -TERM "$driver"' TERM
status=0
wait "$driver" || status=$?
if [[ -n $requeue ]]; then
  wait "$driver" || status=$? # the first wait ended with the signal
fi

kill -TERM "${nodes[@]}" 2>/dev/null || true
wait "${nodes[@]}" || true
if [[ -n $made ]]; then
  srun --overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
    rm -rf "$made" || true
fi
rm -rf "$folder"
if [[ -n $requeue && $status -ne 0 ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
