-- name: open
-- In the organisation that was joined first.
insert into access.session (digest, person_id, organisation_id, expires_at, address, browser)
values (
  $1, $2,
  (select organisation_id from access.membership where person_id = $2 order by created_at, organisation_id limit 1),
  now() + $3, $4, $5
)

-- name: visitor
-- Who a session belongs to, and everything a page needs to know of them, in one question.
with seen as (
  update access.session set seen_at = now()
  where digest = $1 and seen_at < now() - $3::interval and seen_at > now() - $2::interval and expires_at > now()
)
select person.id as person_id, person.name, person.email, person.operator,
  here.id as organisation_id, here.name as organisation, here.role,
  (select coalesce(array_agg(organisation.name order by organisation.name), '{}')
   from access.membership join access.organisation on organisation.id = membership.organisation_id
   where membership.person_id = person.id) as organisations
from access.session join access.person on person.id = session.person_id
left join lateral (
  -- The one that the browser looks at; of who belongs there no more, the first that they do belong to.
  (select organisation.id, organisation.name, membership.role, true as asked, organisation.created_at
   from access.organisation
   left join access.membership
     on membership.organisation_id = organisation.id and membership.person_id = session.person_id
   where organisation.id = session.organisation_id and (membership.role is not null or person.operator))
  union all
  (select organisation.id, organisation.name, membership.role, false, membership.created_at
   from access.membership join access.organisation on organisation.id = membership.organisation_id
   where membership.person_id = session.person_id)
  order by asked desc, created_at, id limit 1
) as here on true
where session.digest = $1 and session.expires_at > now() and session.seen_at > now() - $2::interval
  and person.disabled_at is null

-- name: close
delete from access.session where digest = $1

-- name: enter
-- Look at another organisation: one that the person belongs to, or any for an operator.
update access.session as session set organisation_id = organisation.id
from access.person, access.organisation
where session.digest = $1 and person.id = session.person_id and organisation.name = $2
  and (person.operator or exists (
    select from access.membership
    where membership.person_id = person.id and membership.organisation_id = organisation.id))
returning organisation.id

-- name: list
select id, address, browser, created_at, seen_at, digest = $2 as here
from access.session
where person_id = $1 and expires_at > now() and seen_at > now() - $3::interval
order by digest = $2 desc, seen_at desc

-- name: end_one
delete from access.session where person_id = $1 and id = $2 returning id

-- name: end_others
with ended as (delete from access.session where person_id = $1 and digest <> $2 returning id)
select count(*) from ended

-- name: sweep
delete from access.session
where digest in (
  select digest from access.session where expires_at < now() or seen_at < now() - $1::interval
  limit 1000 for update skip locked
)

-- name: sweep_halves
delete from access.half_sign_in where expires_at < now()

-- name: open_half
insert into access.half_sign_in (digest, person_id, expires_at) values ($1, $2, now() + $3::interval)

-- name: half_person
select person.id, person.name, person.email, person.operator
from access.half_sign_in join access.person on person.id = half_sign_in.person_id
where half_sign_in.digest = $1 and half_sign_in.expires_at > now() and person.disabled_at is null

-- name: close_half
delete from access.half_sign_in where digest = $1
