-- name: standing
select
  (select confirmed_at from access.second_factor where person_id = $1) as confirmed_at,
  (select count(*) from access.recovery_code where person_id = $1 and used_at is null) as recovery_codes

-- name: begin
insert into access.second_factor as factor (person_id, sealed_secret) values ($1, $2)
on conflict (person_id) do update set sealed_secret = $2, begun_at = now(), last_step = 0
where factor.confirmed_at is null
returning person_id

-- name: secret
select sealed_secret, confirmed_at from access.second_factor where person_id = $1

-- name: confirm
-- Of the secret that the code was made with, so that one begun anew meanwhile is not confirmed by it.
update access.second_factor set confirmed_at = now(), last_step = $2
where person_id = $1 and confirmed_at is null and sealed_secret = $3
returning person_id

-- name: use_step
update access.second_factor set last_step = $2
where person_id = $1 and confirmed_at is not null and last_step < $2
returning person_id

-- name: put_recovery_codes
with old as (delete from access.recovery_code where person_id = $1)
insert into access.recovery_code (person_id, digest) select $1, unnest($2::bytea[])

-- name: use_recovery_code
update access.recovery_code set used_at = now()
where person_id = $1 and digest = $2 and used_at is null
returning person_id

-- name: remove
with codes as (delete from access.recovery_code where person_id = $1)
delete from access.second_factor where person_id = $1
