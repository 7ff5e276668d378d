-- Ids of nodes that differ in case alone are two, and an alert may be for any number of webhooks.
ALTER TABLE logferry_node MODIFY id VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL;

ALTER TABLE logferry_error MODIFY node VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '';

ALTER TABLE logferry_alert MODIFY delivery MEDIUMTEXT NOT NULL;
