-- The journals of all stacks. Each stack writes its own rows alone, and locks its row of `stacks`
-- first in each transaction.
CREATE TABLE stacks (
    id text PRIMARY KEY,
    account text NOT NULL,
    -- the process that has it now (none: it has ended), as it calls itself, and its state directory
    owner text,
    holder text NOT NULL,
    home text NOT NULL,
    -- counted up by each transaction
    beat bigint NOT NULL,
    -- no start takes it up again: it goes once nothing of it is open
    passing boolean NOT NULL
);

CREATE TABLE epochs (
    stack text NOT NULL REFERENCES stacks ON DELETE CASCADE,
    epoch bigint NOT NULL,
    pid bigint NOT NULL,
    started double precision NOT NULL,
    PRIMARY KEY (stack, epoch)
);

CREATE TABLE overrides (
    stack text NOT NULL REFERENCES stacks ON DELETE CASCADE,
    id text NOT NULL,
    number text NOT NULL,
    number_sid text NOT NULL,
    prior text,
    written text,
    session text NOT NULL,
    state text NOT NULL,
    uncertain_until double precision NOT NULL DEFAULT 0,
    since double precision NOT NULL,
    changed double precision NOT NULL,
    PRIMARY KEY (stack, id)
);
CREATE INDEX overrides_open ON overrides (stack) WHERE state NOT IN ('restored', 'left_alone');

CREATE TABLE holders (
    stack text NOT NULL,
    override text NOT NULL,
    session text NOT NULL,
    secret_hash text NOT NULL,
    PRIMARY KEY (stack, override, session),
    FOREIGN KEY (stack, override) REFERENCES overrides ON DELETE CASCADE
);

CREATE TABLE dials (
    stack text NOT NULL REFERENCES stacks ON DELETE CASCADE,
    request text NOT NULL,
    session text NOT NULL,
    secret_hash text NOT NULL,
    call text NOT NULL,
    mode text NOT NULL,
    callee text NOT NULL,
    caller text NOT NULL,
    timeout double precision NOT NULL,
    max_duration double precision NOT NULL,
    token_hash text NOT NULL,
    sid text,
    state text NOT NULL,
    asked double precision NOT NULL,
    seconds double precision,
    PRIMARY KEY (stack, request)
);
CREATE INDEX dials_open ON dials (stack) WHERE state != 'closed';
CREATE INDEX dials_asked ON dials (stack, asked);

CREATE TABLE seen (
    stack text NOT NULL REFERENCES stacks ON DELETE CASCADE,
    sid text NOT NULL,
    since double precision NOT NULL,
    PRIMARY KEY (stack, sid)
);
CREATE INDEX seen_since ON seen (stack, since);
