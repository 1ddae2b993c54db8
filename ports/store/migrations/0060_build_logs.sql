-- What was said while a version was made, or while one was not: then without a version. They count as logs of their account.
CREATE TABLE build_logs (
    id INTEGER NOT NULL PRIMARY KEY,
    owner BLOB NOT NULL,
    name TEXT NOT NULL,
    function BLOB,
    version BIGINT,
    at_ms BIGINT NOT NULL,
    text TEXT NOT NULL
);
CREATE UNIQUE INDEX build_logs_version ON build_logs (function, version) WHERE version IS NOT NULL;
CREATE INDEX build_logs_owner ON build_logs (owner, id);

CREATE TRIGGER build_logs_go_with_their_version AFTER DELETE ON versions BEGIN
    DELETE FROM build_logs WHERE function = OLD.function AND version = OLD.version;
END;
CREATE TRIGGER build_logs_are_counted AFTER INSERT ON build_logs BEGIN
    INSERT INTO usage (account, kind, items, bytes) VALUES (NEW.owner, 2, 1, length(CAST(NEW.text AS BLOB)))
        ON CONFLICT (account, kind) DO UPDATE SET items = items + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER build_logs_are_discounted AFTER DELETE ON build_logs BEGIN
    UPDATE usage SET items = items - 1, bytes = bytes - length(CAST(OLD.text AS BLOB)) WHERE account = OLD.owner AND kind = 2;
END;
