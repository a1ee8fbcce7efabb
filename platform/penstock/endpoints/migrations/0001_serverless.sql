create schema endpoints;

create table endpoints.serverless (
  id              bigint      generated always as identity primary key,
  organisation_id bigint      not null,
  project_id      bigint      not null,
  name            text        not null constraint serverless_name
                  check (name ~ '^[a-z]([a-z0-9-]{1,30}[a-z0-9])$'),
  model           text        not null,
  description     text        not null default '' constraint serverless_description check (length(description) <= 1000),
  tags            jsonb       not null default '{}',
  limits          jsonb       not null default '{}',
  suspended       text,
  created_at      timestamptz not null default now(),
  changed_at      timestamptz not null default now(),
  deleted_at      timestamptz
);
create unique index serverless_name_unique on endpoints.serverless (organisation_id, name) where deleted_at is null;
create index serverless_changed on endpoints.serverless (changed_at);
create index serverless_model on endpoints.serverless (model) where deleted_at is null;
comment on table  endpoints.serverless is 'A catalog model under a name, URL and keys of its own, answered by the model''s shared pool.';
comment on column endpoints.serverless.suspended is 'Why it takes no requests at present; null: it takes them';
comment on column endpoints.serverless.limits is 'penstock.access.limits.RateLimits, of all its keys together';
comment on column endpoints.serverless.deleted_at is 'Kept for what was billed under it';
