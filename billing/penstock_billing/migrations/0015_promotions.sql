-- What is left of each promotion, so that each expires by what was really not used of it.

alter table billing.promotion
  add column transaction_id   bigint references billing.ledger_transaction,
  add column left_nano_usd    bigint not null default 0 constraint promotion_left_not_negative check (left_nano_usd >= 0),
  add column expired_nano_usd bigint not null default 0,
  add constraint promotion_parts check (left_nano_usd + expired_nano_usd <= amount_nano_usd);
create index promotion_due on billing.promotion (expires_at) where left_nano_usd > 0;
comment on column billing.promotion.transaction_id is 'The ledger transaction that gave it';
comment on column billing.promotion.left_nano_usd is 'What was left when its wallet''s promotions were last counted; what gateways hold counts as left';
comment on column billing.promotion.expired_nano_usd is 'What of it was booked as expired';
comment on column billing.promotion.expired_at is 'When first a part of it was booked as expired';
