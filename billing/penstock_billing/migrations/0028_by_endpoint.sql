-- Pages about an endpoint read some of its requests from every part of a window, never all of them. Requests that
-- called a model by its name pay nothing for it.

create index usage_event_by_endpoint on billing.usage_event (organisation_id, endpoint, ended_at) where endpoint <> '';
