-- Plain SQL as SQLite and PostgreSQL both understand it, save BLOB (bytea there) and WITHOUT ROWID.
-- Times are Unix milliseconds; identifiers and digests are their raw bytes.

CREATE TABLE users (
    account BLOB NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    public_key BLOB NOT NULL,
    password_hash TEXT,
    sealed_key BLOB,
    roles BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL
);

CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    account BLOB NOT NULL,
    scopes TEXT NOT NULL,
    label TEXT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT
);
CREATE INDEX tokens_account ON tokens (account, created_at_ms);

CREATE TABLE functions (
    id BLOB NOT NULL PRIMARY KEY,
    owner BLOB NOT NULL,
    owner_name TEXT NOT NULL,
    name TEXT NOT NULL,
    live_version BIGINT NOT NULL,
    public BIGINT NOT NULL,
    concurrency BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    deleted_at_ms BIGINT
);
CREATE UNIQUE INDEX functions_name ON functions (owner, name) WHERE deleted_at_ms IS NULL;

-- `record` is JSON, so that fields may be added.
CREATE TABLE versions (
    function BLOB NOT NULL,
    version BIGINT NOT NULL,
    record TEXT NOT NULL,
    sealed_secrets BLOB NOT NULL,
    PRIMARY KEY (function, version)
);

-- `record` is the borsh encoding without output and logs, after one byte of format. Columns that are not NULL say more
-- than the record: it is written once. An id begins with its time, so the order of ids is the order of age.
CREATE TABLE jobs (
    id BLOB NOT NULL PRIMARY KEY,
    function BLOB NOT NULL,
    developer BLOB NOT NULL,
    state BIGINT NOT NULL,
    unsettled BIGINT NOT NULL,
    record BLOB NOT NULL,
    provider BLOB,
    paid_height BIGINT,
    commission_ucr BIGINT
) WITHOUT ROWID;
CREATE INDEX jobs_function ON jobs (function, id);
CREATE INDEX jobs_developer ON jobs (developer, id);
CREATE INDEX jobs_unsettled ON jobs (id) WHERE unsettled = 1;

CREATE TABLE job_contents (
    id BLOB NOT NULL PRIMARY KEY,
    output BLOB,
    logs TEXT NOT NULL
) WITHOUT ROWID;

-- Acknowledged jobs without an outcome.
CREATE TABLE accepted (
    id BLOB NOT NULL PRIMARY KEY,
    record BLOB NOT NULL
);

CREATE TABLE idempotency (
    account BLOB NOT NULL,
    function BLOB NOT NULL,
    key TEXT NOT NULL,
    request BLOB NOT NULL,
    job BLOB NOT NULL,
    created_at_ms BIGINT NOT NULL,
    PRIMARY KEY (account, function, key)
);
CREATE INDEX idempotency_age ON idempotency (created_at_ms);

-- `scope` is a function's id, or empty for the system.
CREATE TABLE rollups (
    scope BLOB NOT NULL,
    step_ms BIGINT NOT NULL,
    start_ms BIGINT NOT NULL,
    count BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    cold BIGINT NOT NULL,
    cpu_us BIGINT NOT NULL,
    duration_us BIGINT NOT NULL,
    price_ucr BIGINT NOT NULL,
    memory_peak_bytes BIGINT NOT NULL,
    durations BLOB NOT NULL,
    PRIMARY KEY (scope, step_ms, start_ms)
) WITHOUT ROWID;

CREATE TABLE lanes (
    lease BLOB NOT NULL,
    provider BLOB NOT NULL,
    high_water BIGINT NOT NULL,
    PRIMARY KEY (lease, provider)
);

CREATE TABLE kept_values (
    space TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (space, key)
);

-- Single numbers: `journal_position`, `ledger_height`.
CREATE TABLE marks (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO marks (name, value) VALUES ('journal_position', 0), ('ledger_height', 0);
