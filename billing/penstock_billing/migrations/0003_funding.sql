-- Who pays from what: wallets, credit and its leases, budgets; and a ledger that knows them.

-- Events say what they used beside tokens, and which wallet they were admitted on. ------------------------

alter table billing.usage_event
  add column images            integer not null default 0,
  add column audio_ms          integer not null default 0,
  add column documents         integer not null default 0,
  add column batch             boolean not null default false,
  add column endpoint          text    not null default '',
  add column funding           text    not null default 'postpaid',
  add column wallet_project_id bigint  not null default 0,
  drop constraint usage_event_outcome,
  add constraint usage_event_outcome check (outcome in
    ('done', 'client_gone', 'engine_failed', 'stalled', 'shutdown', 'credit_ended', 'recovered')),
  add constraint usage_event_funding check (funding in ('prepaid', 'postpaid'));
comment on column billing.usage_event.outcome is
  'done, client_gone, credit_ended, recovered (charged what was generated); engine_failed, stalled, shutdown (ours: free)';
comment on column billing.usage_event.endpoint is 'The endpoint that was called; empty for a model called by its name';
comment on column billing.usage_event.funding is 'Fixed at admission: prepaid comes out of credit, postpaid is owed';
comment on column billing.usage_event.wallet_project_id is 'The project whose wallet pays; 0 is the organisation''s own';

-- Wallets. ------------------------------------------------------------------------------------------------

create table billing.wallet (
  organisation_id      bigint      not null,
  project_id           bigint      not null default 0,
  funding              text        not null constraint wallet_funding check (funding in ('prepaid', 'postpaid')),
  strict               boolean     not null default false,
  owed_max_nano_usd    bigint      constraint wallet_owed_max check (owed_max_nano_usd >= 0),
  changed_at           timestamptz not null default now(),
  constraint wallet_identity primary key (organisation_id, project_id)
);
comment on table  billing.wallet is 'How an organisation (project 0) or one of its projects pays. Without a row: postpaid, without limit; a project without one uses its organisation''s.';
comment on column billing.wallet.strict is 'Prepaid only: a request is admitted for no more than its worst case, so that credit never goes below 0';
comment on column billing.wallet.owed_max_nano_usd is 'Postpaid only: no request is admitted beyond this much owed; null is no limit';
create index wallet_changed on billing.wallet (changed_at);

insert into billing.account_kind (kind, meaning) values
  ('cash',           'What the organisation paid us'),
  ('prepaid',        'Credit that was paid for and is not used; negative, as we owe the service'),
  ('promotional',    'Credit that was given and is not used; negative, as we owe the service'),
  ('promotion_cost', 'What we gave as promotional credit'),
  ('lease',          'Credit that gateways hold to admit requests by; negative, as we owe the service'),
  ('breakage',       'Promotional credit that expired; negative, as it is ours again'),
  ('concession',     'What we gave back of what was charged');

alter table billing.account
  add column project_id bigint not null default 0,
  drop constraint account_identity,
  add constraint account_identity unique (organisation_id, project_id, kind);
comment on table  billing.account is 'Balances; one account per wallet and kind. What is not a wallet''s is under project 0.';

alter table billing.ledger_transaction
  add column note     text   not null default '',
  add column actor    text   not null default '',
  add column corrects bigint references billing.ledger_transaction,
  drop constraint ledger_transaction_kind,
  add constraint ledger_transaction_kind check (kind in (
    'usage', 'minutes', 'top_up', 'promotion', 'promotion_expiry', 'lease_grant', 'lease_release',
    'payment', 'refund', 'correction'));
create index ledger_transaction_booked on billing.ledger_transaction (booked_at);
comment on column billing.ledger_transaction.ref is
  'Why it was booked, once: ship:<journal>:<bytes shipped>, minutes:<interval>:<until>, lease:<id>:<n>, top-up:<id>, …';
comment on column billing.ledger_transaction.kind is
  'usage and minutes earn; top_up, payment and refund move cash; promotion gives credit; lease_* lend it to gateways; correction gives back';
comment on column billing.ledger_transaction.actor is 'Who did it, when a person did';
comment on column billing.ledger_transaction.corrects is 'The transaction this one makes good';

-- Gateway boots and the credit they hold. -----------------------------------------------------------------

create table billing.gateway_boot (
  boot_id    text        primary key,
  host       text        not null,
  started_at timestamptz not null default now(),
  seen_at    timestamptz not null default now(),
  settled_at timestamptz
) with (fillfactor = 50);
comment on table  billing.gateway_boot is 'Gateway processes that held credit or claims.';
comment on column billing.gateway_boot.settled_at is 'The process is gone and all it wrote is in this database: nothing more will come';

create table billing.lease (
  id                           bigint      generated always as identity primary key,
  boot_id                      text        not null references billing.gateway_boot,
  organisation_id              bigint      not null,
  project_id                   bigint      not null,
  granted_nano_usd             bigint      not null,
  promotional_granted_nano_usd bigint      not null,
  settled_nano_usd             bigint      not null default 0,
  grants                       integer     not null default 1,
  opened_at                    timestamptz not null default now(),
  expires_at                   timestamptz not null,
  released_at                  timestamptz,
  constraint lease_parts check (promotional_granted_nano_usd between 0 and granted_nano_usd)
) with (fillfactor = 50);
create unique index lease_open on billing.lease (boot_id, organisation_id, project_id) where released_at is null;
create index lease_by_wallet on billing.lease (organisation_id, project_id) where released_at is null;
comment on table  billing.lease is 'Credit that one gateway process holds of one wallet, so that admission asks no database.';
comment on column billing.lease.granted_nano_usd is 'All that was lent to it, renewals included';
comment on column billing.lease.promotional_granted_nano_usd is 'The part of it that came out of promotional credit; used first';
comment on column billing.lease.settled_nano_usd is 'What requests admitted on it have cost, as far as shipped';
comment on column billing.lease.expires_at is 'The holder admits nothing after this without renewing it';

create table billing.promotion (
  id              bigint      generated always as identity primary key,
  organisation_id bigint      not null,
  project_id      bigint      not null,
  amount_nano_usd bigint      not null constraint promotion_positive check (amount_nano_usd > 0),
  expires_at      timestamptz,
  note            text        not null default '',
  created_at      timestamptz not null default now(),
  expired_at      timestamptz
);
create index promotion_by_wallet on billing.promotion (organisation_id, project_id, expires_at);
comment on table billing.promotion is 'Credit that was given; what expires first is used first.';

-- Budgets. ------------------------------------------------------------------------------------------------

create table billing.spend_month (
  organisation_id bigint not null,
  project_id      bigint not null,
  key_id          text   not null,
  month           date   not null,
  cost_nano_usd   bigint not null,
  constraint spend_month_identity primary key (organisation_id, project_id, key_id, month)
) with (fillfactor = 50);
comment on table billing.spend_month is 'What each key cost in a UTC month, written in the transaction that adds the events: what budgets go by.';

create table billing.budget (
  id              bigint      generated always as identity primary key,
  organisation_id bigint      not null,
  project_id      bigint,
  key_id          text,
  period          text        not null constraint budget_period check (period in ('month', 'total')),
  limit_nano_usd  bigint      not null constraint budget_limit check (limit_nano_usd >= 0),
  alert_percents  integer[]   not null default '{}',
  enforced        boolean     not null default true,
  created_at      timestamptz not null default now(),
  changed_at      timestamptz not null default now(),
  ended_at        timestamptz,
  constraint budget_one_scope check (key_id is null or project_id is null)
);
create unique index budget_scope on billing.budget
  (organisation_id, coalesce(project_id, 0), coalesce(key_id, ''), period) where ended_at is null;
comment on table  billing.budget is 'A limit on what a key, a project or the whole organisation may spend in a UTC month, or ever.';
comment on column billing.budget.enforced is 'Whether requests beyond it are refused; else it only alerts';

create table billing.budget_alert (
  budget_id      bigint      not null references billing.budget,
  period_start   date        not null,
  percent        integer     not null,
  spent_nano_usd bigint      not null,
  raised_at      timestamptz not null default now(),
  constraint budget_alert_identity primary key (budget_id, period_start, percent)
);
comment on table billing.budget_alert is 'A threshold of a budget that was passed; once per period.';

create trigger append_only before update or delete on billing.rejected_frame
  for each row execute function billing.refuse_change();
