-- Where a job's result is, where that is not simply with the job. States: 0 kept, 1 owed, 2 delivered, 3 undelivered, 4 expired.
CREATE TABLE job_results (
    job BLOB NOT NULL PRIMARY KEY,
    function BLOB NOT NULL,
    state BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    next_at_ms BIGINT NOT NULL,
    expires_at_ms BIGINT,
    detail TEXT NOT NULL
);
CREATE INDEX job_results_owed ON job_results (next_at_ms) WHERE state = 1;
CREATE INDEX job_results_expiring ON job_results (expires_at_ms) WHERE expires_at_ms IS NOT NULL AND state IN (0, 3);
