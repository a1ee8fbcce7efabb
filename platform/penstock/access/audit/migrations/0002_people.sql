-- How people get in: invitations, and and second factors set up and removed, which are of no organisation.

call audit.watch('access.invitation', 'invitation', 'id', 'email', 'created_at');
call audit.watch('access.second_factor', 'second factor', 'person_id', '', 'begun_at last_step');
