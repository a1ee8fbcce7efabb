-- name: create
insert into access.person (email, name, password_hash, operator) values ($1, $2, $3, $4)
on conflict (lower(email)) do nothing
returning id

-- name: by_email
select id, name, email, password_hash, operator from access.person
where lower(email) = lower($1) and disabled_at is null

-- name: find
select id, name, email, operator from access.person where lower(email) = lower($1)

-- name: rehash
update access.person set password_hash = $2 where id = $1

-- name: join
insert into access.membership (person_id, organisation_id, role) values ($1, $2, $3)
on conflict (person_id, organisation_id) do update set role = excluded.role

-- name: any
select exists (select from access.person)

-- name: rename
update access.person set name = $2 where id = $1

-- name: set_password
-- Who knows the old one is nobody any more, wherever they are signed in.
with changed as (
  update access.person set password_hash = $2, password_changed_at = now() where id = $1 returning id
), halves as (
  delete from access.half_sign_in where person_id = $1
)
delete from access.session where person_id = $1

-- name: disable
with changed as (
  update access.person set disabled_at = coalesce(disabled_at, now()) where id = $1 returning id
), halves as (
  delete from access.half_sign_in where person_id = $1
)
delete from access.session where person_id = $1

-- name: enable
update access.person set disabled_at = null where id = $1

-- name: set_operator
update access.person set operator = $2 where id = $1

-- name: list
select person.id, person.email, person.name, person.operator, person.created_at, person.disabled_at,
  exists (select from access.second_factor
          where second_factor.person_id = person.id and confirmed_at is not null) as second_factor,
  (select max(session.seen_at) from access.session where session.person_id = person.id) as seen_at,
  coalesce(belongs.names, '{}') as belongs_to, coalesce(belongs.roles, '{}') as roles
from access.person
left join lateral (
  select array_agg(organisation.name order by organisation.name) as names,
    array_agg(membership.role order by organisation.name) as roles
  from access.membership join access.organisation on organisation.id = membership.organisation_id
  where membership.person_id = person.id
) as belongs on true
where ($1::text is null or $1 = any (belongs.names))
  and ($2::text is null or strpos(lower(person.email || ' ' || person.name), $2) > 0)
  and ($4::bigint is null or person.id = $4)
order by lower(person.email)
limit $3

-- name: account
select created_at, password_changed_at from access.person where id = $1

-- name: memberships
select organisation.name, membership.role
from access.membership join access.organisation on organisation.id = membership.organisation_id
where membership.person_id = $1
order by organisation.name
