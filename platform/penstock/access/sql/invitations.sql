-- name: is_member
select exists (
  select from access.membership join access.person on person.id = membership.person_id
  where membership.organisation_id = $1 and lower(person.email) = lower($2)
)

-- name: lock
select from access.organisation where id = $1 for no key update

-- name: revoke_open
update access.invitation set revoked_at = now()
where organisation_id = $1 and lower(email) = lower($2) and accepted_at is null and revoked_at is null

-- name: create
insert into access.invitation (digest, organisation_id, email, role, invited_by, expires_at)
values ($1, $2, $3, $4, $5, now() + $6::interval)

-- name: list
select invitation.id, invitation.email, invitation.role, coalesce(person.name, '') as invited_by,
  invitation.created_at, invitation.expires_at, invitation.expires_at <= now() as expired
from access.invitation left join access.person on person.id = invitation.invited_by
where invitation.organisation_id = $1 and accepted_at is null and revoked_at is null
order by invitation.created_at desc, invitation.id desc

-- name: revoke
update access.invitation set revoked_at = now()
where organisation_id = $1 and id = $2 and accepted_at is null and revoked_at is null
returning email

-- name: find
select invitation.id, invitation.organisation_id, organisation.name as organisation, invitation.email,
  invitation.role, coalesce(inviter.name, '') as invited_by, invitation.expires_at,
  exists (select from access.person where lower(person.email) = lower(invitation.email)) as has_account,
  invitation.accepted_at is not null as accepted, invitation.revoked_at is not null as revoked,
  invitation.expires_at <= now() as expired
from access.invitation
join access.organisation on organisation.id = invitation.organisation_id
left join access.person as inviter on inviter.id = invitation.invited_by
where invitation.digest = $1

-- name: take
select id from access.invitation
where digest = $1 and accepted_at is null and revoked_at is null and expires_at > now()
for update

-- name: accept
update access.invitation set accepted_at = now(), accepted_by = $2 where id = $1

-- name: join
-- Who belongs to it already stays what they are.
insert into access.membership (person_id, organisation_id, role) values ($1, $2, $3)
on conflict (person_id, organisation_id) do nothing
