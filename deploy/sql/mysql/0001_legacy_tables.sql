-- The tables of the legacy monitor. Where they are there already, they stay as they are.
CREATE TABLE IF NOT EXISTS registered_node (
    ip       VARCHAR(64)  NOT NULL,
    port     INT          NOT NULL,
    role     VARCHAR(64)  NOT NULL,
    hostname VARCHAR(255) NOT NULL,
    ctime    DATETIME     NOT NULL,
    UNIQUE KEY node (ip, port)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

CREATE TABLE IF NOT EXISTS service_error_log (
    ctime      DATETIME    NOT NULL,
    ip         VARCHAR(80) NOT NULL,
    role       VARCHAR(64) NOT NULL,
    error_type VARCHAR(80) NOT NULL,
    error_msg  TEXT        NOT NULL,
    KEY service_error_time (ctime)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;
