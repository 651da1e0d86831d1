-- Small pieces of state under a name.
CREATE TABLE document (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    body BLOB NOT NULL
) WITHOUT ROWID;

-- Tries to reach somebody, the oldest first.
CREATE TABLE attempt (
    id INTEGER PRIMARY KEY,
    event_id BLOB NOT NULL,
    stored_at INTEGER NOT NULL, -- milliseconds since 1970
    body BLOB NOT NULL
);
CREATE INDEX attempt_by_event ON attempt (event_id);
