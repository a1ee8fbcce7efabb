create schema access;

create table access.organisation (
  id         bigint      generated always as identity primary key,
  name       text        not null constraint organisation_name_unique unique
                         constraint organisation_name_length check (length(name) between 1 and 100),
  created_at timestamptz not null default now()
);
comment on table access.organisation is 'A tenant: it owns projects, keys and endpoints, and it pays.';

create table access.project (
  id              bigint      generated always as identity primary key,
  organisation_id bigint      not null references access.organisation,
  name            text        not null constraint project_name_length check (length(name) between 1 and 100),
  created_at      timestamptz not null default now(),
  constraint project_name_unique unique (organisation_id, name)
);
comment on table access.project is 'A part of an organisation that owns keys and endpoints.';

create table access.api_key (
  id              text        primary key,
  organisation_id bigint      not null references access.organisation,
  project_id      bigint      not null references access.project,
  name            text        not null constraint api_key_name_length check (length(name) between 1 and 100),
  digest          bytea       not null,
  last_four       text        not null,
  created_at      timestamptz not null default now(),
  revoked_at      timestamptz,
  changed_at      timestamptz not null default now()
);
comment on table access.api_key is 'A credential: its secret was shown once, only HMAC-SHA256(pepper, secret) is kept.';
comment on column access.api_key.changed_at is 'Gateways read every key that changed lately; they never read all of them again.';
create index api_key_changed on access.api_key (changed_at);
create index api_key_organisation on access.api_key (organisation_id, created_at);
