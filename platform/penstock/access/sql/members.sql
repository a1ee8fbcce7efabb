-- name: members
-- An organisation's members, or the one person.
select person.id as person_id, person.name, person.email, membership.role, membership.created_at as joined_at,
       (select max(session.seen_at) from access.session where session.person_id = person.id) as seen_at,
       person.disabled_at is not null as disabled
from access.membership join access.person on person.id = membership.person_id
where membership.organisation_id = $1 and (person.id = $2 or $2::bigint is null)
order by array_position(array['owner', 'developer', 'viewer'], membership.role), lower(person.name), person.id

-- name: person_of
select id from access.person where lower(email) = lower($1)

-- name: lock
select id from access.organisation where id = $1 for no key update

-- name: other_owner
select exists (
  select from access.membership join access.person on person.id = membership.person_id
  where membership.organisation_id = $1 and membership.role = 'owner' and person.id <> $2
    and person.disabled_at is null)

-- name: change_role
update access.membership set role = $3 where organisation_id = $1 and person_id = $2

-- name: remove
delete from access.membership where organisation_id = $1 and person_id = $2

-- name: leave
-- Where they looked at it, they look at the one they joined first.
update access.session set organisation_id = (
  select membership.organisation_id from access.membership where membership.person_id = $2
  order by membership.created_at, membership.organisation_id limit 1)
where person_id = $2 and organisation_id = $1
