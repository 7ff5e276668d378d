-- Rows of the legacy table that could not be deleted when their nodes left: as long as they are as they were they are no nodes.
CREATE TABLE IF NOT EXISTS logferry_legacy_kept (
    ip    VARCHAR(64) NOT NULL,
    port  INT         NOT NULL,
    ctime VARCHAR(40) NOT NULL,
    PRIMARY KEY (ip, port)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
