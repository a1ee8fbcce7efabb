-- Every gateway says that it is there, not only those that hold credit or claims.

comment on table  billing.gateway_boot is 'Gateway processes, each by the boot id that its journal''s files bear.';
comment on column billing.gateway_boot.host is 'Where its files are; only there can they be shipped';
comment on column billing.gateway_boot.seen_at is 'When it last said that it lives; for people, nothing is decided by it';
