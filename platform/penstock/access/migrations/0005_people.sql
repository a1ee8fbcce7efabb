-- People who sign in to the portal, what they may do where, and where they are signed in.

create table access.person (
  id                  bigint      generated always as identity primary key,
  email               text        not null constraint person_email_length check (length(email) between 3 and 254),
  name                text        not null constraint person_name_length check (length(name) between 1 and 100),
  password_hash       text        not null,
  operator            boolean     not null default false,
  created_at          timestamptz not null default now(),
  disabled_at         timestamptz,
  password_changed_at timestamptz not null default now()
);
comment on table  access.person is 'A human with a local account; what they may do is in their memberships.';
comment on column access.person.password_hash is 'argon2id with its own salt and costs, as argon2-cffi writes it';
comment on column access.person.operator is 'Runs the installation: sees every organisation, prices and machines.';
create unique index person_email_unique on access.person (lower(email));

create table access.membership (
  person_id       bigint      not null references access.person,
  organisation_id bigint      not null references access.organisation,
  role            text        not null constraint membership_role check (role in ('owner', 'developer', 'viewer')),
  created_at      timestamptz not null default now(),
  primary key (person_id, organisation_id)
);
create index membership_organisation on access.membership (organisation_id);
comment on table access.membership is 'Who belongs to which organisation, as what.';

create table access.session (
  digest          bytea       primary key,
  person_id       bigint      not null references access.person,
  organisation_id bigint      references access.organisation,
  created_at      timestamptz not null default now(),
  seen_at         timestamptz not null default now(),
  expires_at      timestamptz not null,
  address         text        not null default '',
  browser         text        not null default ''
);
create index session_person on access.session (person_id);
comment on table  access.session is 'A browser that is signed in; its cookie holds a random token, only the digest is kept.';
comment on column access.session.organisation_id is 'The organisation that is looked at; null: of an operator who belongs to none';
