-- name: take
-- Take a try, which takes $3 to come back; none is given when that would need more than $4 from now.
insert into access.sign_in_limit as bucket (kind, subject, busy_until) values ($1, $2, now() + $3::interval)
on conflict (kind, subject) do update set busy_until = greatest(bucket.busy_until, now()) + $3::interval
where greatest(bucket.busy_until, now()) + $3::interval <= now() + $4::interval
returning true

-- name: wait_s
-- How long until one is there again.
select extract(epoch from busy_until + $3::interval - $4::interval - now())::float8
from access.sign_in_limit where kind = $1 and subject = $2

-- name: give_back
update access.sign_in_limit set busy_until = busy_until - $3::interval where kind = $1 and subject = $2

-- name: forgive
delete from access.sign_in_limit where kind = $1 and subject = $2

-- name: sweep
delete from access.sign_in_limit
where (kind, subject) in (
  select kind, subject from access.sign_in_limit where busy_until < now() limit 1000 for update skip locked
)
