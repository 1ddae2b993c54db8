-- Jobs that have not succeeded are few: a list of them must not walk all the others.
CREATE INDEX jobs_unusual ON jobs (developer, id) WHERE state <> 2;
