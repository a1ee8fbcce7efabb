-- Top-ups, refunds and the like are few among the many that are booked by the minute: they are found by themselves.

create index ledger_transaction_of_people on billing.ledger_transaction (id)
  where kind not in ('usage', 'minutes', 'lease_grant', 'lease_release');
