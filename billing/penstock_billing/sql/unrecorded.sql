-- name: add
insert into billing.unrecorded_request (request_id, ended_at, reason)
select * from unnest($1::text[], $2::timestamptz[], $3::text[])
on conflict (request_id) do nothing
