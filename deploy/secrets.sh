#!/usr/bin/env bash
# Make up the secrets of the compose file, once: deploy/.env, readable by you alone.
set -euo pipefail

cd "$(dirname "$0")"
if [[ -e .env ]]; then
  echo "deploy/.env is there already and stays as it is." >&2
  exit 1
fi

secret() {
  od --address-radix=n --format=x1 --read-bytes=32 /dev/urandom | tr --delete ' \n'
}

umask 077
cat >.env <<END
POSTGRES_PASSWORD=$(secret)
S3_SECRET_KEY=$(secret)
MLFLOW_PASSWORD=$(secret)
MLFLOW_COOKIE_KEY=$(secret)
RAY_AUTH_TOKEN=$(secret)
END
echo "Wrote deploy/.env: keep it, and keep it out of git."
