-- What nodes tell with their heartbeats, the error log with whole times and names, and how far the monitor's queue is written.
CREATE TABLE IF NOT EXISTS logferry_node (
    id            VARCHAR(128) NOT NULL PRIMARY KEY,
    ip            VARCHAR(64)  NOT NULL,
    port          INT          NOT NULL,
    role          VARCHAR(80)  NOT NULL,
    name          VARCHAR(300) NOT NULL,
    host          VARCHAR(300) NOT NULL,
    version       VARCHAR(80)  NOT NULL,
    state         VARCHAR(16)  NOT NULL,
    since_ms      BIGINT       NOT NULL,
    registered_ms BIGINT       NOT NULL,
    seen_ms       BIGINT       NULL,
    status        MEDIUMTEXT   NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

CREATE TABLE IF NOT EXISTS logferry_error (
    id      BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    unix_ms BIGINT       NOT NULL,
    ip      VARCHAR(64)  NOT NULL,
    port    INT          NOT NULL,
    role    VARCHAR(80)  NOT NULL,
    name    VARCHAR(300) NOT NULL,
    kind    VARCHAR(80)  NOT NULL,
    text    TEXT         NOT NULL,
    KEY logferry_error_time (unix_ms)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

CREATE TABLE IF NOT EXISTS logferry_journal (
    journal BIGINT NOT NULL PRIMARY KEY,
    applied BIGINT NOT NULL
) ENGINE = InnoDB;
