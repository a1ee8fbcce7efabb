-- What people do with money: refunds know their request, promotions know what is left of them.

create index ledger_transaction_corrects on billing.ledger_transaction (corrects) where corrects is not null;

create table billing.refund (
  transaction_id  bigint primary key references billing.ledger_transaction,
  organisation_id bigint not null,
  request_id      text   not null
);
create index refund_by_request on billing.refund (organisation_id, request_id);
comment on table billing.refund is 'Which request a refund gave back the cost of: no request is refunded beyond it.';

create trigger append_only before update or delete on billing.refund
  for each row execute function billing.refuse_change();
create trigger append_only_whole before truncate on billing.refund
  for each statement execute function billing.refuse_change();
revoke update, delete on billing.refund from penstock_app;
