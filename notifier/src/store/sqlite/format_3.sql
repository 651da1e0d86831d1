-- Groups of jobs, and how many of their jobs ended how.
CREATE TABLE job_group (
    id INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    succeeded INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    rev INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0, -- of results
    stored_at INTEGER NOT NULL        -- milliseconds since 1970
);
CREATE UNIQUE INDEX job_group_by_name ON job_group (user_id, name);
CREATE INDEX job_group_by_age ON job_group (stored_at);

-- The jobs of a group that have ended.
CREATE TABLE job_group_part (
    group_id INTEGER NOT NULL,
    job INTEGER NOT NULL, -- its index in the group
    rev INTEGER NOT NULL,
    outcome INTEGER NOT NULL, -- 0 succeeded, 1 failed, 2 cancelled
    task_id TEXT NOT NULL,
    result BLOB
);
CREATE UNIQUE INDEX job_group_part_by_job ON job_group_part (group_id, job);
