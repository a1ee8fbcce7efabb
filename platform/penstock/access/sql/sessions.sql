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
update access.session as session set seen_at = now()
from access.person
where session.digest = $1 and person.id = session.person_id
  and session.expires_at > now() and session.seen_at > now() - $2::interval and person.disabled_at is null
returning person.id as person_id, person.name, person.email, person.operator, session.organisation_id,
  (select organisation.name from access.organisation where organisation.id = session.organisation_id) as organisation,
  (select membership.role from access.membership
   where membership.person_id = person.id and membership.organisation_id = session.organisation_id) as role,
  (select coalesce(array_agg(organisation.name order by organisation.name), '{}')
   from access.membership join access.organisation on organisation.id = membership.organisation_id
   where membership.person_id = person.id) as organisations

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
