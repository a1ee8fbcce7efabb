-- Roll-ups by minute, hour and day, of every unit and by endpoint.

alter table billing.usage_minute
  add column endpoint  text   not null default '',
  add column images    bigint not null default 0,
  add column audio_ms  bigint not null default 0,
  add column documents bigint not null default 0,
  drop constraint usage_minute_identity,
  add constraint usage_minute_identity
    primary key (organisation_id, minute, project_id, key_id, model, price_version, outcome, endpoint);

create table billing.usage_hour (like billing.usage_minute including defaults including storage) with (fillfactor = 90);
alter table billing.usage_hour rename column minute to hour;
alter table billing.usage_hour add constraint usage_hour_identity
  primary key (organisation_id, hour, project_id, key_id, model, price_version, outcome, endpoint);
comment on table billing.usage_hour is 'Sums of usage_minute by hour, for the hours before roll_up_mark.';

create table billing.usage_day (like billing.usage_minute including defaults including storage) with (fillfactor = 90);
alter table billing.usage_day rename column minute to day;
alter table billing.usage_day add constraint usage_day_identity
  primary key (organisation_id, day, project_id, key_id, model, price_version, outcome, endpoint);
comment on table billing.usage_day is 'Sums of usage_hour by UTC day, for the days before roll_up_mark.';

create table billing.roll_up_mark (
  level        text        primary key constraint roll_up_level check (level in ('hour', 'day')),
  rolled_until timestamptz not null
);
insert into billing.roll_up_mark (level, rolled_until) values ('hour', 'epoch'), ('day', 'epoch');
comment on table  billing.roll_up_mark is 'How far hours and days are summed up. Shipping adds late events to them itself, so the sums are exact at any moment.';

create table billing.archive (
  day           date        primary key,
  file          text        not null,
  events        bigint      not null,
  cost_nano_usd bigint      not null,
  sha256        bytea       not null,
  exported_at   timestamptz not null default now(),
  detached_at   timestamptz,
  restored_at   timestamptz
);
comment on table  billing.archive is 'Days whose events were written to a Parquet file; once detached, the file alone has them.';
comment on column billing.archive.cost_nano_usd is 'The sum over the file''s events, for the books'' checks';
