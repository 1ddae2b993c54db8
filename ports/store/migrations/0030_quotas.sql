-- What each account keeps, by kind: 1 outputs, 2 logs, 3 records of jobs. Counted by triggers, and so in the transaction of what
-- is counted. Outputs and logs that lie within a job's record (512 bytes together) count as part of it.
CREATE TABLE usage (
    account BLOB NOT NULL,
    kind BIGINT NOT NULL,
    items BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (account, kind)
) WITHOUT ROWID;

-- What an operator set for an account, by kind.
CREATE TABLE quotas (
    account BLOB NOT NULL,
    kind BIGINT NOT NULL,
    most BIGINT NOT NULL,
    PRIMARY KEY (account, kind)
) WITHOUT ROWID;

-- The digest of a version's bundle, in hex as in the record, and what the bundle takes on disk; 0 where that is not known yet.
ALTER TABLE versions ADD COLUMN code TEXT NOT NULL DEFAULT '';
ALTER TABLE versions ADD COLUMN bundle_bytes BIGINT NOT NULL DEFAULT 0;
UPDATE versions SET code = json_extract(record, '$.code');
CREATE INDEX versions_code ON versions (code);
CREATE INDEX functions_owner ON functions (owner);

-- `dropped`: 1 the output, 2 the logs were dropped because their account kept too much.
DELETE FROM job_contents WHERE id NOT IN (SELECT id FROM jobs);
ALTER TABLE job_contents ADD COLUMN developer BLOB;
ALTER TABLE job_contents ADD COLUMN dropped BIGINT NOT NULL DEFAULT 0;
UPDATE job_contents SET developer = (SELECT developer FROM jobs WHERE jobs.id = job_contents.id);
CREATE INDEX job_contents_outputs ON job_contents (developer, id) WHERE output IS NOT NULL;
CREATE INDEX job_contents_logs ON job_contents (developer, id) WHERE logs <> '';

INSERT INTO usage (account, kind, items, bytes)
    SELECT developer, 1, COUNT(*), SUM(length(output)) FROM job_contents WHERE output IS NOT NULL GROUP BY developer;
INSERT INTO usage (account, kind, items, bytes)
    SELECT developer, 2, COUNT(*), SUM(length(CAST(logs AS BLOB))) FROM job_contents WHERE logs <> '' GROUP BY developer;
INSERT INTO usage (account, kind, items, bytes)
    SELECT developer, 3, COUNT(*), SUM(length(record)) FROM jobs GROUP BY developer;

CREATE TRIGGER jobs_are_counted AFTER INSERT ON jobs BEGIN
    INSERT INTO usage (account, kind, items, bytes) VALUES (NEW.developer, 3, 1, length(NEW.record))
        ON CONFLICT (account, kind) DO UPDATE SET items = items + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER jobs_are_recounted AFTER UPDATE OF record ON jobs BEGIN
    UPDATE usage SET bytes = bytes + length(NEW.record) - length(OLD.record) WHERE account = NEW.developer AND kind = 3;
END;
CREATE TRIGGER jobs_are_discounted AFTER DELETE ON jobs BEGIN
    UPDATE usage SET items = items - 1, bytes = bytes - length(OLD.record) WHERE account = OLD.developer AND kind = 3;
END;

CREATE TRIGGER contents_are_counted AFTER INSERT ON job_contents BEGIN
    INSERT INTO usage (account, kind, items, bytes)
        VALUES (NEW.developer, 1, NEW.output IS NOT NULL, COALESCE(length(NEW.output), 0))
        ON CONFLICT (account, kind) DO UPDATE SET items = items + excluded.items, bytes = bytes + excluded.bytes;
    INSERT INTO usage (account, kind, items, bytes)
        VALUES (NEW.developer, 2, NEW.logs <> '', length(CAST(NEW.logs AS BLOB)))
        ON CONFLICT (account, kind) DO UPDATE SET items = items + excluded.items, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER contents_are_recounted AFTER UPDATE OF output, logs ON job_contents BEGIN
    UPDATE usage SET items = items + (NEW.output IS NOT NULL) - (OLD.output IS NOT NULL),
        bytes = bytes + COALESCE(length(NEW.output), 0) - COALESCE(length(OLD.output), 0)
        WHERE account = NEW.developer AND kind = 1;
    UPDATE usage SET items = items + (NEW.logs <> '') - (OLD.logs <> ''),
        bytes = bytes + length(CAST(NEW.logs AS BLOB)) - length(CAST(OLD.logs AS BLOB))
        WHERE account = NEW.developer AND kind = 2;
END;
CREATE TRIGGER contents_are_discounted AFTER DELETE ON job_contents BEGIN
    UPDATE usage SET items = items - (OLD.output IS NOT NULL), bytes = bytes - COALESCE(length(OLD.output), 0)
        WHERE account = OLD.developer AND kind = 1;
    UPDATE usage SET items = items - (OLD.logs <> ''), bytes = bytes - length(CAST(OLD.logs AS BLOB))
        WHERE account = OLD.developer AND kind = 2;
END;
