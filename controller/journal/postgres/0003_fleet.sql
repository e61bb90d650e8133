-- Controllers of one account and one public URL are a fleet: peers go from one to another.
-- The address of the bus at which the stack is served (none: it is not, or is nobody else's business)
ALTER TABLE stacks ADD COLUMN endpoint text;
ALTER TABLE stacks ADD COLUMN public_url text;
-- Who has a number, whichever stack
CREATE INDEX overrides_number ON overrides (number) WHERE state NOT IN ('restored', 'left_alone');
-- When Twilio may be asked for the account's next call
CREATE TABLE paces (
    account text PRIMARY KEY,
    next_call timestamptz NOT NULL
);
