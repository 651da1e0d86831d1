CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value
) WITHOUT ROWID;

-- A stream stays when its events are gone: its numbers go on.
CREATE TABLE stream (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    last INTEGER NOT NULL DEFAULT 0,
    first INTEGER NOT NULL DEFAULT 1,
    cursor INTEGER NOT NULL DEFAULT 0,
    read_up_to INTEGER NOT NULL DEFAULT 0,
    unread INTEGER NOT NULL DEFAULT 0
);

-- `id` grows with every event, so that new ones are written at the end of the table whatever their
-- stream, and the oldest of all are at its beginning.
CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    event_id BLOB NOT NULL,
    stored_at INTEGER NOT NULL, -- milliseconds since 1970
    state INTEGER NOT NULL,     -- 0 new, 1 read, 2 archived
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX event_by_number ON event (stream, seq);
-- The id first: ids of version 7 grow, so that new ones come at the index's end as well. With the
-- stream first, each event of another stream would touch a page of its own.
CREATE UNIQUE INDEX event_by_id ON event (event_id, stream);

CREATE TABLE task (
    user_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    rev INTEGER NOT NULL,
    is_final INTEGER NOT NULL,
    stored_at INTEGER NOT NULL, -- milliseconds since 1970
    state BLOB NOT NULL,
    PRIMARY KEY (user_id, task_id)
) WITHOUT ROWID;
CREATE INDEX task_by_rev ON task (user_id, rev);
CREATE INDEX task_by_age ON task (stored_at);
