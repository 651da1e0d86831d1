-- The board is in the order in which states were kept. A `rev` only says which of one task's is the newest,
-- and is the same of all that wait.
DROP INDEX task_by_rev;
CREATE INDEX task_by_time ON task (user_id, stored_at, task_id);
