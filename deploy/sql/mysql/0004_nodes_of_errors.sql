-- Which node an error is of, because names may be used twice, and a way to the nodes of an address.
ALTER TABLE logferry_error ADD COLUMN node VARCHAR(128) NOT NULL DEFAULT '';

CREATE INDEX logferry_node_address ON logferry_node (ip, port);
