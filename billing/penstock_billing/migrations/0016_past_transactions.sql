-- A transaction says for ever what it said when it was booked: not even entries that balance can be added later.

create or replace function billing.check_entries() returns trigger language plpgsql as $$
declare
  wrong bigint;
begin
  select transaction_id into wrong
  from added group by transaction_id having sum(amount_nano_usd) <> 0 limit 1;
  if found then
    raise exception 'entries of ledger transaction % do not sum to 0; insert them all in one statement', wrong
      using errcode = 'check_violation', constraint = 'entry_balances';
  end if;
  select booked.id into wrong
  from (select distinct transaction_id from added) as given
  join billing.ledger_transaction as booked on booked.id = given.transaction_id
  where booked.booked_at <> transaction_timestamp() limit 1;
  if found then
    raise exception 'ledger transaction % is booked: no entry can be added to it; book a correction instead', wrong
      using errcode = 'check_violation', constraint = 'entry_is_of_now';
  end if;
  return null;
end $$;
