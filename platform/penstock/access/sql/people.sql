-- name: create
insert into access.person (email, name, password_hash, operator) values ($1, $2, $3, $4)
on conflict (lower(email)) do nothing
returning id

-- name: by_email
select id, name, email, password_hash, operator from access.person
where lower(email) = lower($1) and disabled_at is null

-- name: rehash
update access.person set password_hash = $2 where id = $1

-- name: join
insert into access.membership (person_id, organisation_id, role) values ($1, $2, $3)
on conflict (person_id, organisation_id) do update set role = excluded.role

-- name: any
select exists (select from access.person)
