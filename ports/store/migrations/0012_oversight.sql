-- What its owner and the platform decided about a function, as JSON: traffic, quarantine, budget.
ALTER TABLE functions ADD COLUMN policy TEXT NOT NULL DEFAULT '{}';
CREATE INDEX functions_deleted ON functions (owner, deleted_at_ms) WHERE deleted_at_ms IS NOT NULL;

-- Who changed what, and when. `owner` is whose the changed thing is; `detail` is JSON.
CREATE TABLE audit (
    id INTEGER NOT NULL PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    actor BLOB,
    owner BLOB NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX audit_actor ON audit (actor, id);
CREATE INDEX audit_owner ON audit (owner, id);

-- Append-only (PostgreSQL: a rule or revoked rights instead).
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit record is append-only');
END;
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit record is append-only');
END;

-- Blocks in which the ledger noted a step of a job, where it was not the block that paid it.
CREATE TABLE job_steps (
    job BLOB NOT NULL,
    step TEXT NOT NULL,
    height BIGINT NOT NULL,
    PRIMARY KEY (job, step)
);
