-- Invitations: a link that makes whoever has that address a member.

create table access.invitation (
  id              bigint      generated always as identity primary key,
  digest          bytea       not null constraint invitation_digest_unique unique,
  organisation_id bigint      not null references access.organisation,
  email           text        not null constraint invitation_email_length check (length(email) between 3 and 254),
  role            text        not null constraint invitation_role check (role in ('owner', 'developer', 'viewer')),
  invited_by      bigint      references access.person,
  created_at      timestamptz not null default now(),
  expires_at      timestamptz not null,
  accepted_at     timestamptz,
  accepted_by     bigint      references access.person,
  revoked_at      timestamptz
);
create unique index invitation_open on access.invitation (organisation_id, lower(email))
  where accepted_at is null and revoked_at is null;
comment on table  access.invitation is 'A link to join an organisation, shown once to who made it; only its digest is kept.';
comment on column access.invitation.invited_by is 'null: by a command beside the platform';
