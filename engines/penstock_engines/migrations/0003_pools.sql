-- Pools: which models have shared engines, how many, of which version.

create table engines.pool_version (
  model      text        not null,
  version    integer     not null constraint pool_version_positive check (version > 0),
  content    jsonb       not null,
  note       text        not null default '',
  created_at timestamptz not null default now(),
  constraint pool_version_identity primary key (model, version)
);
comment on table  engines.pool_version is 'What a pool''s engines run: immutable, so that rolling back runs what ran before.';
comment on column engines.pool_version.content is 'Weights, task, context and engine settings (penstock_engines.pools.Content)';

create table engines.pool (
  model      text        primary key,
  version    integer     not null,
  settings   jsonb       not null,
  origin     text        not null constraint pool_origin check (origin in ('settings', 'operator')),
  changed_at timestamptz not null default now(),
  constraint pool_version_exists foreign key (model, version) references engines.pool_version
);
comment on table  engines.pool is 'Desired state: the leading controller makes it so.';
comment on column engines.pool.version is 'The version every engine of the pool should run';
comment on column engines.pool.settings is 'Size, scaling and routing (penstock_engines.pool_settings.PoolSettings)';
comment on column engines.pool.origin is 'settings: named in PENSTOCK_MODELS and never changed since; operator: made or changed by a person';

create table engines.scaling (
  id       bigint      generated always as identity primary key,
  model    text        not null,
  at       timestamptz not null default now(),
  before   integer     not null,
  after    integer     not null,
  reason   text        not null,
  sample   jsonb       not null
);
create index scaling_by_model on engines.scaling (model, id desc);
comment on table engines.scaling is 'Every decision about a pool''s size, with what was seen and why.';

-- Not logged: after a crash of Postgres every gateway has written it anew within a second.
create unlogged table engines.load (
  gateway          text        not null,
  model            text        not null,
  running          integer     not null,
  waiting_requests integer     not null,
  waiting_tokens   double precision not null,
  first_token_ms   integer     not null,
  asked_at         timestamptz not null,
  told_at          timestamptz not null default now(),
  constraint load_identity primary key (gateway, model)
);
comment on table  engines.load is 'What each gateway has to do for each model, told every second while there is any.';
comment on column engines.load.first_token_ms is '90th percentile over the last half minute; 0 where there was none';
comment on column engines.load.asked_at is 'When the model was last asked for there';

alter table engines.replica
  add column version    integer     not null default 1,
  add column started_at timestamptz not null default now();
comment on column engines.replica.version is 'The pool''s version that it runs';

create table engines.hardware (
  controller text        primary key,
  content    jsonb       not null,
  told_at    timestamptz not null default now()
);
comment on table engines.hardware is 'What the leading controller''s machine has for engines (penstock_engines.inventory.Inventory)';

create table engines.start (
  id          bigint           generated always as identity primary key,
  model       text             not null,
  version     integer          not null,
  at          timestamptz      not null default now(),
  process_s   double precision not null,
  listening_s double precision not null,
  answer_s    double precision not null
);
create index start_by_model on engines.start (model, id desc);
comment on table  engines.start is 'How long each start of an engine took, by part, in seconds from its beginning.';
comment on column engines.start.process_s is 'Until the engine''s process existed';
comment on column engines.start.listening_s is 'Until its weights were loaded and it listened';
comment on column engines.start.answer_s is 'Until its first real answer';
