-- Signing in: how often it may be tried, second factors, and what a browser is between password and code.

alter table access.session add column id bigint generated always as identity constraint session_id_unique unique;
comment on column access.session.id is 'What its person names it by, to end it';
create index session_expires on access.session (expires_at);

create table access.sign_in_limit (
  kind       text        not null,
  subject    bytea       not null,
  busy_until timestamptz not null,
  primary key (kind, subject)
);
create index sign_in_limit_busy_until on access.sign_in_limit (busy_until);
comment on table  access.sign_in_limit is 'Who tried to sign in lately and failed; a row whose time is past says nothing and is swept.';
comment on column access.sign_in_limit.subject is 'SHA-256 of the address, account or browser, so that the table tells nobody who tried';
comment on column access.sign_in_limit.busy_until is 'When all tries are there again: each takes a while, and so many fit before it (GCRA)';

create table access.half_sign_in (
  digest     bytea       primary key,
  person_id  bigint      not null references access.person,
  expires_at timestamptz not null
);
create index half_sign_in_person on access.half_sign_in (person_id);
comment on table access.half_sign_in is 'A browser that gave the password and owes the code: no session, it opens nothing.';

create table access.second_factor (
  person_id     bigint      primary key references access.person,
  sealed_secret bytea       not null,
  begun_at      timestamptz not null default now(),
  confirmed_at  timestamptz,
  last_step     bigint      not null default 0
);
comment on table  access.second_factor is 'Time-based codes (RFC 6238) that a person must give after their password.';
comment on column access.second_factor.sealed_secret is 'AES-256-GCM under a key derived from the pepper, bound to the person';
comment on column access.second_factor.confirmed_at is 'null: the first code was not given yet, and none is asked for';
comment on column access.second_factor.last_step is 'The 30 seconds that the last code taken belongs to; no code is taken twice';

create table access.recovery_code (
  person_id bigint      not null references access.person,
  digest    bytea       not null,
  used_at   timestamptz,
  primary key (person_id, digest)
);
comment on table access.recovery_code is 'What is given in place of a code by who lost the device; each works once.';
