-- What was dropped of an account's part of the audit record because there was too much of it: its entries up to this one.
-- `whose`: 1 those that it made, 2 those that the platform made about it.
CREATE TABLE audit_dropped (
    account BLOB NOT NULL,
    whose BIGINT NOT NULL,
    up_to BIGINT NOT NULL,
    entries BIGINT NOT NULL,
    PRIMARY KEY (account, whose)
) WITHOUT ROWID;
CREATE INDEX audit_platform ON audit (owner, id) WHERE actor IS NULL;

-- Append-only still, but for what is noted as dropped.
DROP TRIGGER audit_is_never_deleted;
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit
WHEN NOT EXISTS (
    SELECT 1 FROM audit_dropped WHERE account = COALESCE(OLD.actor, OLD.owner)
        AND whose = CASE WHEN OLD.actor IS NULL THEN 2 ELSE 1 END AND up_to >= OLD.id
) BEGIN
    SELECT RAISE(ABORT, 'the audit record is append-only');
END;

CREATE INDEX rollups_age ON rollups (step_ms, start_ms);
