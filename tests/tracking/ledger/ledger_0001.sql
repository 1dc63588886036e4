BEGIN TRANSACTION;
CREATE TABLE ledger_attempt (
	trial_id INTEGER NOT NULL,
	n INTEGER NOT NULL,
	node TEXT NOT NULL,
	pid BIGINT NOT NULL,
	started_at DATETIME NOT NULL,
	ended_at DATETIME,
	outcome VARCHAR(16),
	error TEXT,
	run_id TEXT,
	PRIMARY KEY (trial_id, n),
	FOREIGN KEY(trial_id) REFERENCES ledger_trial (id),
	CONSTRAINT ledger_attempt_outcome_check CHECK (outcome IN ('completed', 'stopped', 'failed', 'lost', 'cancelled'))
);
INSERT INTO "ledger_attempt" VALUES(1,1,'node-a',43,'2026-11-22 10:34:18.076086','2026-11-22 10:34:18.084666','completed',NULL,NULL);
INSERT INTO "ledger_attempt" VALUES(2,1,'node-a',43,'2026-11-22 10:34:18.086813',NULL,NULL,NULL,NULL);
CREATE TABLE ledger_entry (
	id INTEGER NOT NULL,
	sweep_id INTEGER NOT NULL,
	role VARCHAR(16) NOT NULL,
	arm TEXT NOT NULL,
	target TEXT NOT NULL,
	"index" BIGINT NOT NULL,
	trial_id INTEGER NOT NULL,
	proposal JSON,
	at DATETIME NOT NULL,
	PRIMARY KEY (id),
	CONSTRAINT ledger_entry_sweep_id_role_arm_target_index_key UNIQUE (sweep_id, role, arm, target, "index"),
	FOREIGN KEY(sweep_id) REFERENCES ledger_sweep (id),
	CONSTRAINT ledger_entry_role_check CHECK (role IN ('baseline', 'search', 'confirm', 'control', 'latency')),
	FOREIGN KEY(trial_id) REFERENCES ledger_trial (id)
);
INSERT INTO "ledger_entry" VALUES(1,1,'search','l1','macs-50%',0,1,'{"params": {"a": 0.5}}','2026-11-22 10:34:18.068742');
INSERT INTO "ledger_entry" VALUES(2,1,'search','l1','macs-50%',1,2,NULL,'2026-11-22 10:34:18.086030');
CREATE TABLE ledger_metric (
	trial_id INTEGER NOT NULL,
	attempt INTEGER NOT NULL,
	step INTEGER NOT NULL,
	"key" TEXT NOT NULL,
	value DOUBLE,
	at DATETIME NOT NULL,
	PRIMARY KEY (trial_id, attempt, step, "key"),
	FOREIGN KEY(trial_id, attempt) REFERENCES ledger_attempt (trial_id, n)
)
 WITHOUT ROWID

;
INSERT INTO "ledger_metric" VALUES(1,1,0,'loss',1.5,'2026-11-01 12:00:00.000000');
CREATE TABLE ledger_schema (
	version INTEGER NOT NULL,
	PRIMARY KEY (version)
);
INSERT INTO "ledger_schema" VALUES(1);
CREATE TABLE ledger_sweep (
	id INTEGER NOT NULL,
	name TEXT NOT NULL,
	spec JSON NOT NULL,
	spec_hash TEXT NOT NULL,
	state VARCHAR(16) NOT NULL,
	epoch INTEGER NOT NULL,
	owner TEXT,
	artifacts JSON NOT NULL,
	experiment_id TEXT,
	run_id TEXT,
	created_at DATETIME NOT NULL,
	rev INTEGER NOT NULL,
	published_rev INTEGER NOT NULL,
	PRIMARY KEY (id),
	CONSTRAINT ledger_sweep_name_key UNIQUE (name),
	CONSTRAINT ledger_sweep_sweepstate_check CHECK (state IN ('running', 'completed', 'interrupted', 'failed'))
);
INSERT INTO "ledger_sweep" VALUES(1,'grid','{"arms": ["l1"]}','hash-1','running',1,'node-a:42','{}',NULL,NULL,'2026-11-22 10:34:18.055067',2,0);
CREATE TABLE ledger_trial (
	id INTEGER NOT NULL,
	sweep_id INTEGER NOT NULL,
	uid TEXT NOT NULL,
	spec JSON NOT NULL,
	state VARCHAR(16) NOT NULL,
	attempt INTEGER NOT NULL,
	losses INTEGER NOT NULL,
	takeovers INTEGER NOT NULL,
	result JSON,
	error TEXT,
	cause TEXT,
	reused_from INTEGER,
	created_at DATETIME NOT NULL,
	started_at DATETIME,
	ended_at DATETIME,
	rev INTEGER NOT NULL,
	published_rev INTEGER NOT NULL,
	PRIMARY KEY (id),
	CONSTRAINT ledger_trial_sweep_id_uid_key UNIQUE (sweep_id, uid),
	FOREIGN KEY(sweep_id) REFERENCES ledger_sweep (id),
	CONSTRAINT ledger_trial_trialstate_check CHECK (state IN ('pending', 'running', 'completed', 'stopped', 'failed', 'cancelled')),
	FOREIGN KEY(reused_from) REFERENCES ledger_trial (id)
);
INSERT INTO "ledger_trial" VALUES(1,1,'uid-0','{"method": "l1"}','completed',1,0,0,'{"val_accuracy": 90.0}',NULL,NULL,NULL,'2026-11-22 10:34:18.068742','2026-11-22 10:34:18.076086','2026-11-22 10:34:18.082796',4,0);
INSERT INTO "ledger_trial" VALUES(2,1,'uid-1','{"method": "l1"}','running',1,0,0,NULL,NULL,NULL,NULL,'2026-11-22 10:34:18.086030','2026-11-22 10:34:18.086813',NULL,2,0);
CREATE INDEX ledger_trial_uid ON ledger_trial (uid, state);
CREATE INDEX ledger_trial_state ON ledger_trial (sweep_id, state);
CREATE INDEX ledger_trial_outbox ON ledger_trial (sweep_id, id) WHERE rev > published_rev;
CREATE INDEX ledger_entry_trial ON ledger_entry (trial_id);
COMMIT;
