create schema adapters;

create table adapters.adapter (
  id              bigint      generated always as identity primary key,
  organisation_id bigint      not null,
  project_id      bigint      not null,
  base_model      text        not null,
  name            text        not null constraint adapter_name
                  check (name ~ '^[a-z]([a-z0-9-]{0,38}[a-z0-9])$'),
  description     text        not null default '' constraint adapter_description check (length(description) <= 1000),
  active_version  integer     not null,
  created_at      timestamptz not null default now(),
  changed_at      timestamptz not null default now(),
  deleted_at      timestamptz
);
create unique index adapter_name_unique on adapters.adapter (organisation_id, name) where deleted_at is null;
comment on table  adapters.adapter is 'A LoRA fine-tune of a catalog model, private to its organisation, called as base_model:name.';
comment on column adapters.adapter.deleted_at is 'Kept for what was billed under it';

create table adapters.version (
  adapter_id      bigint      not null references adapters.adapter (id),
  number          integer     not null constraint version_number check (number > 0),
  digest          text        not null constraint version_digest check (digest ~ '^[0-9a-f]{64}$'),
  size_bytes      bigint      not null,
  rank            integer     not null,
  target_modules  text[]      not null,
  created_at      timestamptz not null default now(),
  removed_at      timestamptz,
  primary key (adapter_id, number)
);
create index version_digest_index on adapters.version (digest);
comment on table  adapters.version is 'One upload of an adapter; never changed.';
comment on column adapters.version.digest is 'Names its files, and the adapter to engines';
comment on column adapters.version.removed_at is 'When its files were removed, some time after its adapter was deleted';
