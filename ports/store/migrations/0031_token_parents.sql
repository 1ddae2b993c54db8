-- The token that a token was made with: it is revoked with it. NULL where somebody logged in for it.
ALTER TABLE tokens ADD COLUMN parent TEXT;
CREATE INDEX tokens_parent ON tokens (parent) WHERE parent IS NOT NULL;
