-- name: cursors
-- How far this process's own journal is in the database, part by part.
select journal, shipped_bytes from billing.journal_cursor where journal = any($1::text[])
