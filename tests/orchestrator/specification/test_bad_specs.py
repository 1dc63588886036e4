"""Every mistake in a specification: one clear message at its place, and nothing is written."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.commands.exits import exit_code
from orchestrator.errors import SpecError
from orchestrator.specification.loading import load_spec

GOOD = """\
name: digits
model: digits_net
data: digits
arms:
  - l1
  - {method: geometric_median, schedule: {name: iterative, rounds: 3}}
targets: {macs_reduction: [0.5]}
search:
  trials: 8
  sampler: tpe
recipe:
  epochs: 4
  learning_rate: 0.02
seeds: [1, 2]
"""


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A mistake: ``old`` becomes ``new`` in a good file, or an override is wrong."""

    says: str  #: The whole message; several lines for several mistakes.
    old: str = ""
    new: str = ""
    overrides: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        assert self.old in GOOD
        return GOOD.replace(self.old, self.new, 1) if self.old else GOOD + self.new


CASES = {
    "unknown key": Bad(
        old="epochs: 4",
        new="epoch: 4",
        says="sweep.yaml:12: recipe.epoch: unknown key; did you mean 'epochs'?",
    ),
    "unknown key at the top": Bad(
        new="serch: {}\n", says="sweep.yaml:15: serch: unknown key; did you mean 'search'?"
    ),
    "unknown key like no other": Bad(
        new="controls: {zzz: true}\n",
        says="sweep.yaml:15: controls.zzz: unknown key; known are dense, macs_reduction, "
        "random, scratch, uniform_l1",
    ),
    "unknown key of an arm": Bad(
        old="- l1",
        new="- {metod: l1}",
        says="sweep.yaml:5: arms.0.method: is required\n"
        "sweep.yaml:5: arms.0.metod: unknown key; did you mean 'method'?",
    ),
    "unknown key of the baseline": Bad(
        new="baseline:\n  epoch: 3\n",
        says="sweep.yaml:16: baseline.epoch: unknown key; did you mean 'epochs'?",
    ),
    "missing name": Bad(old="name: digits\n", says="sweep.yaml: name: is required"),
    "missing model and arms": Bad(
        old=GOOD,
        new="name: digits\n",
        says="sweep.yaml: model: is required\nsweep.yaml: arms: is required",
    ),
    "text for a whole number": Bad(
        old="epochs: 4",
        new="epochs: four",
        says='sweep.yaml:12: recipe.epochs: is "four"; must be a whole number',
    ),
    "quoted number": Bad(
        old="epochs: 4",
        new="epochs: '4'",
        says='sweep.yaml:12: recipe.epochs: is "4"; must be a whole number',
    ),
    "truth for a whole number": Bad(
        old="epochs: 4",
        new="epochs: true",
        says="sweep.yaml:12: recipe.epochs: is true; must be a whole number",
    ),
    "fraction for a whole number": Bad(
        old="epochs: 4",
        new="epochs: 4.5",
        says="sweep.yaml:12: recipe.epochs: is 4.5; must be a whole number",
    ),
    "yes for truth": Bad(
        new="controls: {dense: yes}\n",
        says='sweep.yaml:15: controls.dense: is "yes"; must be true or false',
    ),
    "not finite": Bad(
        old="0.02",
        new=".nan",
        says="sweep.yaml:13: recipe.learning_rate: is NaN; must be a finite number",
    ),
    "negative epochs": Bad(
        old="epochs: 4",
        new="epochs: -1",
        says="sweep.yaml:12: recipe.epochs: is -1; must be at least 0",
    ),
    "learning rate of zero": Bad(
        old="0.02",
        new="0",
        says="sweep.yaml:13: recipe.learning_rate: is 0; must be above 0.0",
    ),
    "empty section": Bad(
        old="recipe:\n  epochs: 4\n  learning_rate: 0.02",
        new="recipe:",
        says="sweep.yaml:11: recipe: is null; must be a mapping of keys to values",
    ),
    "list for a mapping": Bad(
        new="layers: [coupled]\n",
        says='sweep.yaml:15: layers: is ["coupled"]; must be a mapping of keys to values',
    ),
    "text for a list": Bad(
        old="[1, 2]", new="1, 2", says='sweep.yaml:14: seeds: is "1, 2"; must be a list'
    ),
    "percentage for a share": Bad(
        old="[0.5]",
        new="[50]",
        says="sweep.yaml:7: targets.macs_reduction.0: is 50; it is a share below 1: write 0.5 "
        "for 50 %",
    ),
    "reduction of one": Bad(
        old="[0.5]",
        new="[0.3, 1.0]",
        says="sweep.yaml:7: targets.macs_reduction.1: is 1.0; must be below 1.0",
    ),
    "negative reduction": Bad(
        old="[0.5]",
        new="-0.5",
        says="sweep.yaml:7: targets.macs_reduction.0: is -0.5; must be above 0.0",
    ),
    "target twice": Bad(
        old="[0.5]",
        new="[0.5, 0.50]",
        says="sweep.yaml:7: targets: names the same target twice; take one out",
    ),
    "no target": Bad(
        old="{macs_reduction: [0.5]}",
        new="{}",
        says="sweep.yaml:7: targets: names no target; leave 'targets' out to search the whole "
        "front",
    ),
    "front without search": Bad(
        overrides=("targets=null", "search.trials=1"),
        says="sweep.yaml: a front needs more than search.trials = 1; raise it, or name targets",
    ),
    "front with one objective": Bad(
        overrides=("targets=null", "search.sampler=cmaes"),
        says="sweep.yaml: cmaes has one objective and cannot search a front; use tpe or nsga2",
    ),
    "ratio of one": Bad(
        old="trials: 8",
        new="max_ratio: 1.0",
        says="sweep.yaml:9: search.max_ratio: is 1.0; must be below 1.0",
    ),
    "bounds the wrong way round": Bad(
        old="trials: 8",
        new="min_ratio: 0.95",
        says="sweep.yaml:8: search: min_ratio 0.95 is above max_ratio 0.9; swap them",
    ),
    "limits the wrong way round": Bad(
        old="trials: 8",
        new='limits: {"layer3.*": [0.5, 0]}',
        says="sweep.yaml:8: search: limits of 'layer3.*' are [0.5, 0.0]; the smaller is first",
    ),
    "limits of one number": Bad(
        old="trials: 8",
        new='limits: {"layer3.*": [0.5]}',
        says="sweep.yaml:9: search.limits.layer3.*.1: is required",
    ),
    "unknown sampler": Bad(
        old="tpe",
        new="nsga",
        says="sweep.yaml:10: search.sampler: is \"nsga\"; must be 'tpe', 'random', 'nsga2', "
        "'cmaes', 'qmc' or 'gp'; did you mean 'nsga2'?",
    ),
    "no trials": Bad(
        old="trials: 8",
        new="trials: 0",
        says="sweep.yaml:9: search.trials: is 0; must be at least 1",
    ),
    "unknown method": Bad(
        old="geometric_median",
        new="geometric_medium",
        says="sweep.yaml:6: arms.1.method: There is no pruning method 'geometric_medium'; did "
        "you mean 'geometric_median'?",
    ),
    "unknown setting of a method": Bad(
        old="- l1",
        new="- {method: filter_norm, settings: {pp: 2}}",
        says="sweep.yaml:5: arms.0.settings.pp: is unknown; did you mean 'p'?",
    ),
    "unknown schedule": Bad(
        old="iterative",
        new="iterativ",
        says="sweep.yaml:6: arms.1.schedule.name: is 'iterativ', which is unknown; did you mean "
        "'iterative'?",
    ),
    "unknown setting of a schedule": Bad(
        old="rounds: 3",
        new="round: 3",
        says="sweep.yaml:6: arms.1.schedule.round: is unknown; did you mean 'rounds'?",
    ),
    "schedule without a name": Bad(
        old="name: iterative, ",
        new="",
        says="sweep.yaml:6: arms.1.schedule: needs the name of a schedule, as in {name: "
        "iterative, rounds: 3}",
    ),
    "own ratios of a method that has none": Bad(
        old="- l1",
        new="- {method: scop, allocation: method}",
        says="sweep.yaml:5: arms.0.allocation: is 'method', but scop does not choose ratios "
        "by itself; leave it out, or name a method that does ('prunesweep methods' tells)",
    ),
    "own ratios without a target": Bad(
        old="- l1",
        new="- {method: provable, allocation: method}",
        overrides=("targets=null",),
        says="sweep.yaml: the arm 'provable-allocated' chooses its own ratios and needs a cost to "
        "meet; name targets, or leave its allocation out",
    ),
    "own ratios of nobody": Bad(
        old="- l1",
        new="- {method: l1, allocation: methods}",
        says="sweep.yaml:5: arms.0.allocation: is \"methods\"; must be 'search' or 'method'; did "
        "you mean 'method'?",
    ),
    "no arms": Bad(
        old="arms:\n  - l1\n  - {method: geometric_median, schedule: {name: iterative, rounds: 3}}",
        new="arms: []",
        says="sweep.yaml:4: arms: is empty; name at least one method, as in [l1]",
    ),
    "two arms of one name": Bad(
        old="- l1",
        new="- l1\n  - l1",
        says="sweep.yaml:4: arms: two arms are named 'l1'; give one of them another 'name'",
    ),
    "one seed": Bad(
        old="[1, 2]",
        new="[1]",
        says="sweep.yaml:14: seeds: needs two or more; one run says nothing about its spread",
    ),
    "seed twice": Bad(
        old="[1, 2]",
        new="[1, 1]",
        says="sweep.yaml:14: seeds: names a seed twice; every re-run needs its own",
    ),
    "seed of the search": Bad(
        old="[1, 2]",
        new="[0, 1]",
        says="sweep.yaml:14: seeds: has 0, the seed of the search (search.seed); re-runs need "
        "fresh ones",
    ),
    "negative seed": Bad(
        old="[1, 2]", new="[1, -2]", says="sweep.yaml:14: seeds.1: is -2; must be at least 0"
    ),
    "name with a slash": Bad(
        old="name: digits",
        new="name: a/b",
        says='sweep.yaml:1: name: is "a/b"; must begin with a letter or digit and go on, up to '
        "100 in all, with those or . _ + -",
    ),
    "name that is a number": Bad(
        old="name: digits", new="name: 12", says="sweep.yaml:1: name: is 12; must be text"
    ),
    "unknown model": Bad(
        old="digits_net",
        new="digit_net",
        says="sweep.yaml:2: model: 'digit_net' is unknown; did you mean 'digits_net'?",
    ),
    "unknown data set": Bad(
        old="data: digits",
        new="data: cifar",
        says="sweep.yaml:3: data.name: is \"cifar\"; must be 'digits', 'cifar10', "
        "'cifar100', 'mnist', 'fashion_mnist' or 'image_folder'; did you mean 'cifar10'?",
    ),
    "missing checkpoint": Bad(
        new="checkpoint: weights/none.pt\n",
        says="sweep.yaml:15: checkpoint: there is no file 'weights/none.pt', looked for from "
        "{folder}",
    ),
    "folder for a checkpoint": Bad(
        new="checkpoint: .\n",
        says="sweep.yaml:15: checkpoint: there is no file '.', looked for from {folder}",
    ),
    "images without a path": Bad(
        old="data: digits",
        new="data: image_folder",
        says="sweep.yaml:3: data: image_folder needs a path, the folder or zip file that holds it",
    ),
    "missing images": Bad(
        old="data: digits",
        new="data: {name: image_folder, path: photos}",
        says="sweep.yaml:3: data: there is no path 'photos', looked for from {folder}",
    ),
    "images at an address with a password": Bad(
        old="data: digits",
        new="data: {name: image_folder, path: 'https://me:hush@photos/set.zip'}",
        says="sweep.yaml:3: data: path has a password in it, which would be stored; take it out",
    ),
    "arrays at an address": Bad(
        old="data: digits",
        new="data: {name: cifar10, path: 's3://sets/cifar10.zip'}",
        says="sweep.yaml:3: data: path is an address, and cifar10 needs a folder; only an "
        "image_folder may be a zip file at an address",
    ),
    "warm-up longer than training": Bad(
        overrides=("recipe.warmup_epochs=9",),
        says="sweep.yaml:11: recipe: warmup_epochs is 9.0, longer than the 4 epochs; shorten it",
    ),
    "impossible baseline": Bad(
        new="baseline: {warmup_epochs: 9}\n",
        says="sweep.yaml:15: baseline: warmup_epochs is 9.0, longer than the 4 epochs; shorten it",
    ),
    "address of nothing": Bad(
        new="resources: {address: cluster}\n",
        says="sweep.yaml:15: resources.address: is 'cluster'; it must be 'auto', 'local' or "
        "HOST:PORT",
    ),
    "address for a client outside": Bad(
        new="resources: {address: 'ray://head:10001'}\n",
        says="sweep.yaml:15: resources.address: is 'ray://head:10001', and a sweep cannot be "
        "driven from outside its cluster; send it there with `prunesweep submit`, or give "
        "HOST:PORT on a machine of the cluster",
    ),
    "one and a half GPUs": Bad(
        new="resources: {gpu_share: 1.5}\n",
        says="sweep.yaml:15: resources.gpu_share: is 1.5; it must be a share from 0 to 1, "
        "or a whole number up to 1024",
    ),
    "text for a GPU share": Bad(
        new="resources: {gpu_share: all}\n",
        says="sweep.yaml:15: resources.gpu_share: is 'all'; it must be 'auto' or a number",
    ),
    "GPU share on a CPU": Bad(
        new="resources: {device: cpu, gpu_share: 0.5}\n",
        says="sweep.yaml:15: resources: device is cpu, but gpu_share is 0.5; leave one out",
    ),
    "ledger that is no database": Bad(
        new="tracking: {ledger: ledger.db}\n",
        says="sweep.yaml:15: tracking.ledger: must be an address that begins with sqlite or "
        "postgresql or postgresql+psycopg and ://",
    ),
    "password in the file": Bad(
        new="tracking: {ledger: 'postgresql+psycopg://me:hunter2@db/sweeps'}\n",
        says="sweep.yaml:15: tracking.ledger: has a password in it, which would be stored; put "
        "the password, or the whole address, into an environment variable and write ${NAME} here",
    ),
    "password as an option": Bad(
        new="tracking: {ledger: 'postgresql://db/sweeps?password=hunter2'}\n",
        says="sweep.yaml:15: tracking.ledger: has a password in it, which would be stored; put "
        "the password, or the whole address, into an environment variable and write ${NAME} here",
    ),
    "variable that is not set": Bad(
        new="tracking: {mlflow: '${NO_SUCH_SERVER}'}\n",
        says="sweep.yaml:15: tracking.mlflow: environment variable NO_SUCH_SERVER is not set; "
        "export it first",
    ),
    "variable that holds something else": Bad(
        new="tracking: {ledger: '${HOME}'}\n",
        says="sweep.yaml:15: tracking.ledger: must be an address that begins with sqlite or "
        "postgresql or postgresql+psycopg and ://; what ${HOME} holds does not",
    ),
    "variable without a name": Bad(
        new="tracking: {mlflow: 'http://${}'}\n",
        says="sweep.yaml:15: tracking.mlflow: has a '${' that is not an environment variable; "
        "write ${NAME}",
    ),
    "variable outside tracking": Bad(
        old="name: digits",
        new="name: x\nlayers: {protect: ['${HOME}']}",
        says="sweep.yaml:2: layers.protect.0: has a '${'; environment variables are read in "
        "'tracking' only",
    ),
    "key twice": Bad(
        new="name: again\n", says="sweep.yaml:15: name: is given twice, first in line 1"
    ),
    "key that is no text": Bad(
        new="12: x\n", says="sweep.yaml:15: has a key that is not text; put it in quotes"
    ),
    "tag": Bad(
        old="0.02",
        new="!!python/name:os.system x",
        says="sweep.yaml:13: recipe.learning_rate: has the tag "
        "'tag:yaml.org,2002:python/name:os.system'; write plain values",
    ),
    "tab": Bad(
        old="  epochs: 4",
        new="\tepochs: 4",
        says="sweep.yaml:12:1: a tab; YAML is indented with spaces",
    ),
    "open bracket": Bad(
        old="[1, 2]",
        new="[1, 2",
        says="sweep.yaml:15:1: is not YAML: expected ',' or ']', but got '<stream end>'",
    ),
    "second document": Bad(
        new="---\nname: two\n",
        says="sweep.yaml:15:1: a second document begins with '---'; a file holds one specification",
    ),
    "control character": Bad(
        new="layers: \x07\n",
        says="sweep.yaml:15: has the character '\\x07', which YAML does not allow",
    ),
    "alias of itself": Bad(
        new="layers: &a {protect: *a}\n",
        says="sweep.yaml: is nested too deeply, or an alias contains itself",
    ),
    "empty file": Bad(old=GOOD, new="", says="sweep.yaml: is empty; it needs name, model and arms"),
    "only comments": Bad(
        old=GOOD, new="# soon\n", says="sweep.yaml: is empty; it needs name, model and arms"
    ),
    "list at the top": Bad(
        old=GOOD, new="- l1\n", says="sweep.yaml: is not a mapping; write key: value at the top"
    ),
    "override with an unknown key": Bad(
        overrides=("recipe.epoch=3",),
        says="override recipe.epoch: unknown key; did you mean 'epochs'?",
    ),
    "override of the wrong type": Bad(
        overrides=("recipe.epochs=many",),
        says='override recipe.epochs: is "many"; must be a whole number',
    ),
    "override of a whole section": Bad(
        overrides=("recipe={epoch: 3}",),
        says="override recipe: recipe.epoch: unknown key; did you mean 'epochs'?",
    ),
    "override without a value": Bad(
        overrides=("recipe.epochs",),
        says="override recipe.epochs: must read KEY=VALUE, as in recipe.epochs=3",
    ),
    "override without a key": Bad(
        overrides=("=3",), says="override: must read KEY=VALUE, as in recipe.epochs=3"
    ),
    "override that is only a password": Bad(
        overrides=("postgresql://me:hunter2@db/x?a=b",),
        says="override: must read KEY=VALUE, as in recipe.epochs=3",
    ),
    "override of an arm that is not there": Bad(
        overrides=("arms.2.method=l2",),
        says="override arms.2.method: arms is a list; '2' must be a position, 0 to 1",
    ),
    "override inside a number": Bad(
        overrides=("recipe.epochs.first=3",),
        says="override recipe.epochs.first: recipe.epochs is a single value and has no 'first' "
        "inside",
    ),
    "override that is not YAML": Bad(
        overrides=("seeds=[1, 2",),
        says="override seeds: is not YAML: expected ',' or ']', but got '<stream end>'",
    ),
    "override with a password": Bad(
        overrides=("tracking.ledger=postgresql://me:hunter2@db/x",),
        says="override tracking.ledger: has a password in it, which would be stored; put the "
        "password, or the whole address, into an environment variable and write ${NAME} here",
    ),
    "more workers than there are": Bad(
        new="resources: {workers: 1000000000000000000000000000000}\n",
        says="sweep.yaml:15: resources.workers: is 1000000000000000000000000000000; must be at "
        "most 1000000",
    ),
    "endless epochs": Bad(
        old="epochs: 4",
        new=f"epochs: {'9' * 399}",
        says=f"sweep.yaml:12: recipe.epochs: is {'9' * 57}...; must be at most 1000000",
    ),
    "endless CPUs": Bad(
        new="resources: {cpus_per_worker: 1e300}\n",
        says="sweep.yaml:15: resources.cpus_per_worker: is 1e+300; must be at most 10000.0",
    ),
    "GPUs of 399 digits": Bad(
        new=f"resources: {{gpu_share: {'9' * 399}}}\n",
        says=f"sweep.yaml:15: resources.gpu_share: is {'9' * 20}; it must be a share from 0 to 1, "
        "or a whole number up to 1024",
    ),
    "endless rounds": Bad(
        old="rounds: 3",
        new="rounds: 1000000000",
        says="sweep.yaml:6: arms.1.schedule.rounds: is 1000000000: Input should be less than or "
        "equal to 1000000",
    ),
    "store at an address": Bad(
        new="tracking: {store: 's3://bucket/x'}\n",
        says="sweep.yaml:15: tracking.store: is an address, and the store is a folder of the "
        "machine that drives the sweep; give addresses in 'ledger', 'mlflow' and 'artifacts'",
    ),
    "NUL in the store": Bad(
        new='tracking: {store: "a\\0b"}\n',
        says="sweep.yaml:15: tracking.store: has a control character in it, or a blank at an end; "
        "take it out",
    ),
    "store below a file": Bad(
        new="tracking: {store: /dev/null/x}\n",
        says="sweep.yaml:15: tracking.store: would lie below '/dev/null', which is no folder; "
        "name another place",
    ),
    "store of a long name": Bad(
        new=f"tracking: {{store: {'a' * 256}}}\n",
        says="sweep.yaml:15: tracking.store: has a name of more than 255 bytes in it; shorten it",
    ),
    "ledger that is a folder": Bad(
        new="tracking: {ledger: 'sqlite:///.'}\n",
        says="sweep.yaml:15: tracking.ledger: names a folder; name a file in it, such as "
        "sqlite:///ledger.db",
    ),
    "ledger that is a device": Bad(
        new="tracking: {ledger: 'sqlite:////dev/zero'}\n",
        says="sweep.yaml:15: tracking.ledger: names a device or a pipe; name a file",
    ),
    "ledger that is another file": Bad(
        new="tracking: {ledger: 'sqlite:///sweep.yaml'}\n",
        says="sweep.yaml:15: tracking.ledger: names a file of another kind, no SQLite database; "
        "name a new one",
    ),
    "ledger in memory": Bad(
        new="tracking: {ledger: 'sqlite://'}\n",
        says="sweep.yaml:15: tracking.ledger: names no file; write sqlite:///PATH, or "
        "sqlite:////PATH from the root",
    ),
    "ledger at a port that is text": Bad(
        new="tracking: {ledger: 'postgresql://me@db:abc/x'}\n",
        says="sweep.yaml:15: tracking.ledger: is no database address; it must read "
        "SCHEME://HOST:PORT/NAME",
    ),
    "ledger at a port too high": Bad(
        new="tracking: {ledger: 'postgresql://me@db:99999/x'}\n",
        says="sweep.yaml:15: tracking.ledger: has a port above 65535, the highest there is",
    ),
    "MLflow without a host": Bad(
        new="tracking: {mlflow: 'http://'}\n",
        says="sweep.yaml:15: tracking.mlflow: must name a host after http://",
    ),
    "MLflow at a port too high": Bad(
        new="tracking: {mlflow: 'http://host:70000'}\n",
        says="sweep.yaml:15: tracking.mlflow: has a port that is none; it must be 1 to 65535",
    ),
    "artifacts at an unknown address": Bad(
        new="tracking: {artifacts: 'nosuch://x/y'}\n",
        says="sweep.yaml:15: tracking.artifacts: must be a folder or an address that can be "
        "written to, beginning with s3, s3a, gs, gcs, abfs, abfss, az, adl, oss, hdfs, webhdfs, "
        "sftp, ssh, smb, hf and ://",
    ),
    "artifacts that can only be read": Bad(
        new="tracking: {artifacts: 'https://host/y'}\n",
        says="sweep.yaml:15: tracking.artifacts: must be a folder or an address that can be "
        "written to, beginning with s3, s3a, gs, gcs, abfs, abfss, az, adl, oss, hdfs, webhdfs, "
        "sftp, ssh, smb, hf and ://",
    ),
    "artifacts without a bucket": Bad(
        new="tracking: {artifacts: 's3://'}\n",
        says="sweep.yaml:15: tracking.artifacts: names no bucket or host after s3://",
    ),
    "artifacts without the package": Bad(
        new="tracking: {artifacts: 'gs://bucket/y'}\n",
        says="sweep.yaml:15: tracking.artifacts: cannot be used here: Please install gcsfs to "
        "access Google Storage",
    ),
    "cluster at a port too high": Bad(
        new="resources: {address: '127.0.0.1:99999'}\n",
        says="sweep.yaml:15: resources.address: is '127.0.0.1:99999'; a port is 1 to 65535",
    ),
    "mean without numbers": Bad(
        old="data: digits",
        new="data: {name: digits, mean: [], std: []}",
        says="sweep.yaml:3: data.mean: is []; must have 1 value at least\n"
        "sweep.yaml:3: data.std: is []; must have 1 value at least",
    ),
    "ledger in memory by a parameter": Bad(
        new="tracking: {ledger: 'sqlite:///file:x.db?mode=memory&uri=true'}\n",
        says="sweep.yaml:15: tracking.ledger: has parameters after '?', which a file takes none "
        "of; leave them out",
    ),
    "ledger and MLflow in one file": Bad(
        new="tracking: {ledger: 'sqlite:///prunesweep-data/mlflow.db'}\n",
        says="sweep.yaml:15: tracking.ledger: names the SQLite file that MLflow has; each needs "
        "one of its own",
    ),
    "artifacts in memory": Bad(
        new="tracking: {artifacts: 'memory://x'}\n",
        says="sweep.yaml:15: tracking.artifacts: is in the memory of one process, and ends with "
        "it; name a folder or an address",
    ),
    "store of nobody": Bad(
        new="tracking: {store: '~no.such.user/x'}\n",
        says="sweep.yaml:15: tracking.store: begins with '~' and no user of this machine; write "
        "the whole path",
    ),
    "Nesterov without momentum": Bad(
        old="epochs: 4",
        new="nesterov: true\n  momentum: 0",
        says="sweep.yaml:11: recipe: nesterov needs a momentum above 0; raise it, or leave "
        "nesterov out",
    ),
    "onnxruntime in half precision": Bad(
        old="{macs_reduction: [0.5]}",
        new="{latency_reduction: 0.3, latency: {runtime: onnxruntime, precision: bfloat16}}",
        says="sweep.yaml:7: targets.latency: runtime is onnxruntime, which is timed in float32, "
        "and precision is bfloat16; change one of them",
    ),
    "code of a network of ours": Bad(
        old="model: digits_net",
        new="model: {name: digits_net, code: abc}",
        says="sweep.yaml:2: model: code is filled in as a sweep begins, for code of your own; "
        "leave it out",
    ),
    "code of a method of ours": Bad(
        old="- l1",
        new="- {method: l1, code: abc}",
        says="sweep.yaml:5: arms.0.code: is filled in as a sweep begins, for code of your own; "
        "leave it out",
    ),
    "arm with the name of a control": Bad(
        old="- l1",
        new="- {method: l1, name: dense}",
        says="sweep.yaml: an arm is named 'dense', as a control is, and commands could not tell "
        "them apart; give it another 'name', or switch controls.dense off",
    ),
    "several mistakes": Bad(
        old="[0.5]",
        new="[50]",
        overrides=("recipe.epoch=3", "search.trials=many"),
        says="sweep.yaml:7: targets.macs_reduction.0: is 50; it is a share below 1: write 0.5 "
        "for 50 %\n"
        'override search.trials: is "many"; must be a whole number\n'
        "override recipe.epoch: unknown key; did you mean 'epochs'?",
    ),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def message_of(path: str, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides)
    assert exit_code(caught.value) == 2
    return str(caught.value)


def test_the_file_the_mistakes_are_made_in_is_good(folder: Path) -> None:
    (folder / "sweep.yaml").write_text(GOOD)
    assert load_spec("sweep.yaml").name == "digits"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_mistake_gives_its_message_and_nothing_is_written(case: Bad, folder: Path) -> None:
    (folder / "sweep.yaml").write_text(case.text)
    before = contents(folder)
    message = message_of("sweep.yaml", case.overrides)
    assert message == case.says.replace("{folder}", str(folder))
    assert "hunter2" not in message
    assert contents(folder) == before
    assert os.listdir(folder) == ["sweep.yaml"]
