-- The hours of the hosts' sources, as each outputter tells of them, and the history of alerts.
CREATE TABLE IF NOT EXISTS logferry_hour (
    hour          INT           NOT NULL,
    host          VARCHAR(260) NOT NULL,
    source        VARCHAR(260) NOT NULL,
    node          VARCHAR(128) NOT NULL,
    state         VARCHAR(16)   NOT NULL,
    total         BIGINT        NOT NULL,
    packs         BIGINT        NOT NULL,
    line_count    BIGINT        NOT NULL,
    byte_count    BIGINT        NOT NULL,
    missing       VARCHAR(1000) NOT NULL,
    missing_packs BIGINT        NOT NULL,
    end_ms        BIGINT        NOT NULL,
    told_ms       BIGINT        NOT NULL,
    PRIMARY KEY (hour, host, source, node)
);

CREATE TABLE IF NOT EXISTS logferry_alert (
    id       BIGINT       NOT NULL PRIMARY KEY,
    unix_ms  BIGINT       NOT NULL,
    kind     VARCHAR(32)  NOT NULL,
    subject  VARCHAR(600) NOT NULL,
    state    VARCHAR(16)  NOT NULL,
    text     TEXT         NOT NULL,
    delivery VARCHAR(300) NOT NULL
);
