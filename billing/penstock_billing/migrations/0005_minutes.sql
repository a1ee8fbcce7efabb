-- Minutes: charged from recorded intervals, never from ticks.

create table billing.running_interval (
  id              bigint      generated always as identity primary key,
  organisation_id bigint,
  project_id      bigint      not null default 0,
  kind            text        not null constraint running_interval_kind check (kind in ('endpoint', 'instance')),
  subject         text        not null,
  priced_as       text        not null,
  started_at      timestamptz not null,
  seen_at         timestamptz not null,
  stopped_at      timestamptz,
  accrued_until   timestamptz not null,
  constraint running_interval_order check (started_at <= seen_at and (stopped_at is null or stopped_at >= started_at))
);
create unique index running_interval_open on billing.running_interval (kind, subject) where stopped_at is null;
create index running_interval_due on billing.running_interval (accrued_until) where organisation_id is not null;
comment on table  billing.running_interval is 'From ready to stopped: what was ready when. A minute is charged when its subject is ready as it begins.';
comment on column billing.running_interval.organisation_id is 'Who pays; null for what the installation runs for everybody, which costs nobody';
comment on column billing.running_interval.subject is 'The endpoint''s or replica''s id';
comment on column billing.running_interval.priced_as is 'minute_price_version.subject';
comment on column billing.running_interval.seen_at is 'Last proof that it was ready; nothing is charged beyond it';
comment on column billing.running_interval.accrued_until is 'Minutes that begin before this are charged';

create table billing.minute_charge (
  interval_id           bigint      not null references billing.running_interval,
  since                 timestamptz not null,
  until                 timestamptz not null,
  organisation_id       bigint      not null,
  project_id            bigint      not null,
  minute_price_version  bigint      not null references billing.minute_price_version,
  minutes               bigint      not null constraint minute_charge_positive check (minutes > 0),
  cost_nano_usd         bigint      not null constraint minute_charge_cost check (cost_nano_usd >= 0),
  ledger_transaction_id bigint      references billing.ledger_transaction,
  constraint minute_charge_identity primary key (interval_id, since)
);
create index minute_charge_by_organisation on billing.minute_charge (organisation_id, since);
comment on table  billing.minute_charge is 'Minutes that begin in [since, until), charged at one price.';
comment on column billing.minute_charge.cost_nano_usd is 'minutes times the price version''s nano-dollars';

create trigger append_only before update or delete on billing.minute_charge
  for each row execute function billing.refuse_change();
create trigger append_only_whole before truncate on billing.minute_charge
  for each statement execute function billing.refuse_change();
