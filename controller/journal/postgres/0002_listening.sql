-- Calls that are listened to: a row stands for as long as a stream of one may be there.
CREATE TABLE listening (
    stack text NOT NULL REFERENCES stacks ON DELETE CASCADE,
    call text NOT NULL,
    session text NOT NULL,
    secret_hash text NOT NULL,
    sid text NOT NULL,
    theirs text NOT NULL,
    name text NOT NULL,
    since double precision NOT NULL,
    PRIMARY KEY (stack, call)
);
