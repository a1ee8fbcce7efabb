-- Leases that are given back in parts, and asked for by others.

alter table billing.lease add column recalled_at timestamptz;
comment on column billing.lease.granted_nano_usd is 'All that was lent to it, renewals included, less what it gave back before its end';
comment on column billing.lease.grants is 'How often it was renewed or gave back a part: the number in the bookings'' references';
comment on column billing.lease.recalled_at is 'Another gateway needs this wallet''s credit: the holder gives back what no request holds, and clears it';

-- Gateways read the wallets that changed lately; whoever changes one need not think of it.
create function billing.note_wallet_change() returns trigger language plpgsql as $$
begin
  new.changed_at := clock_timestamp();
  return new;
end $$;
comment on function billing.note_wallet_change() is 'Trigger: dates a changed wallet.';
create trigger wallet_dated before insert or update on billing.wallet
  for each row execute function billing.note_wallet_change();
