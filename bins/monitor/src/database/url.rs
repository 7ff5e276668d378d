//! Which database: its URL.

use std::fmt;
use std::path::PathBuf;

/// Where the database is.
#[derive(Clone, PartialEq, Eq)]
pub enum Url {
    /// A file.
    Sqlite(PathBuf),
    /// `mysql://user:password@host:port/database`.
    Mysql(String),
}

impl Url {
    /// Reads `sqlite:///path` or `mysql://…`.
    ///
    /// # Errors
    /// What is expected. The text does not repeat the URL, which may hold a password.
    pub fn parse(text: &str) -> Result<Url, String> {
        let wanted = "expected \"sqlite:///path/of/file.db\" or \"mysql://user:password@host:3306/database\"";
        if let Some(path) = text.strip_prefix("sqlite://") {
            if !path.starts_with('/') || path.len() < 2 {
                return Err(format!("the path must be absolute, with three slashes: {wanted}"));
            }
            return Ok(Url::Sqlite(PathBuf::from(path)));
        }
        if !text.starts_with("mysql://") {
            return Err(format!("this is no database that is known: {wanted}"));
        }
        let options = mysql_async::Opts::from_url(text).map_err(|error| format!("{error}: {wanted}"))?;
        if options.db_name().is_none_or(str::is_empty) {
            return Err(format!("the name of the database is missing: {wanted}"));
        }
        Ok(Url::Mysql(text.to_owned()))
    }
}

/// Without the password.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Url::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Url::Mysql(url) => match mysql_async::Opts::from_url(url) {
                Ok(options) => {
                    let database = options.db_name().unwrap_or_default();
                    write!(f, "mysql://{}:{}/{database}", options.ip_or_hostname(), options.tcp_port())
                }
                Err(_) => f.write_str("mysql://"),
            },
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_their_password() {
        let url = Url::parse("mysql://logferry:secret@db:3307/logs").expect("good");
        assert_eq!(format!("{url} {url:?}"), "mysql://db:3307/logs mysql://db:3307/logs");
        assert_eq!(
            Url::parse("sqlite:///a/b.db").map(|url| url.to_string()).as_deref(),
            Ok("sqlite:///a/b.db")
        );
    }

    #[test]
    fn what_is_no_database_is_refused_without_its_password() {
        for text in [
            "",
            "sqlite://",
            "sqlite://a.db",
            "mysql://u:secret@h",
            "postgres://u:secret@h/d",
            "mysql://u:secret@h:x/d",
        ] {
            let error = Url::parse(text).expect_err(text);
            assert!(error.contains("expected") && !error.contains("secret"), "{text}: {error}");
        }
    }
}
