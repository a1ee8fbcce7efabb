-- Events say that their request was at a second engine as well, whose work nobody pays.

alter table billing.usage_event add column hedged boolean not null default false;
comment on column billing.usage_event.hedged is 'It was sent to a second engine too, since the first was late; the slower one''s work is free';
